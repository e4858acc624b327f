"""What does mesh.json say a model offers and allows? Checked field by field, every fault at once, as libs/model-package does."""

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from .contract import message

_NAME = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_UINT32 = 2**32 - 1


@dataclass(frozen=True)
class Defaults:
    width: int
    height: int
    steps: int
    guidance_scale: float


@dataclass(frozen=True)
class Limits:
    size_multiple: int
    min_width: int
    max_width: int
    min_height: int
    max_height: int
    min_steps: int
    max_steps: int
    min_guidance_scale: float
    max_guidance_scale: float
    max_image_count: int
    max_prompt_tokens: int
    max_loras: int
    min_lora_strength: float
    max_lora_strength: float


@dataclass(frozen=True)
class LoraInfo:
    name: str
    file: str
    """Relative to the model folder."""
    description: str


@dataclass(frozen=True)
class ModelInfo:
    name: str
    revision: str
    family: str
    languages: tuple[str, ...]
    defaults: Defaults
    limits: Limits
    negative_prompt: bool
    loras: tuple[LoraInfo, ...]
    digests: dict[str, str]
    """Relative path to SHA-256 in hex."""

    @property
    def full_name(self) -> str:
        return f"{self.name}@{self.revision}"

    def to_message(self) -> Any:
        model = message("Model")(
            name=self.name,
            revision=self.revision,
            family=self.family,
            languages=self.languages,
            negative_prompt=self.negative_prompt,
            nodes=1,
            loaded_nodes=1,
        )
        for part in ("defaults", "limits"):
            values = getattr(self, part)
            for field in fields(values):
                setattr(getattr(model, part), field.name, getattr(values, field.name))
        for lora in self.loras:
            model.loras.add(name=lora.name, description=lora.description)
        return model


class ManifestFault(Exception):
    """A sentence that names every faulty field."""


def parse_manifest(text: str) -> ModelInfo:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ManifestFault(f"expected JSON, {error}") from error
    read = _Fields(value, "", [])
    loras = tuple(LoraInfo(entry.text("name", _NAME), entry.text("file"), entry.text("description")) for entry in read.objects("loras"))
    info = ModelInfo(
        name=read.text("name", _NAME),
        revision=read.text("revision"),
        family=read.text("family"),
        languages=tuple(read.texts("languages")),
        defaults=_numbers(Defaults, read.object("defaults")),
        limits=_numbers(Limits, read.object("limits")),
        negative_prompt=read.boolean("negativePrompt"),
        loras=loras,
        digests={file: str(digest) for file, digest in read.object("digests", {}).json.items()},
    )
    faults = read.faults or _senseless(info)
    faults += [
        f"loras: {lora.file} leads out of the folder"
        for lora in loras
        if lora.file.startswith("/") or ".." in re.split(r"[\\/]", lora.file)
    ]
    faults += [
        f"digests.{file}: expected a SHA-256 in hex, got {json.dumps(digest)}"
        for file, digest in info.digests.items()
        if not _SHA256.fullmatch(digest)
    ]
    if faults:
        raise ManifestFault("; ".join(faults))
    return info


def _numbers(kind: type, read: "_Fields") -> Any:
    """A dataclass of numbers; mesh.json has its names in camel case."""
    values = {}
    for field in fields(kind):
        key = re.sub(r"_([a-z])", lambda found: found[1].upper(), field.name)
        values[field.name] = read.natural(key) if field.type in (int, "int") else read.number(key)
    return kind(**values)


def _senseless(info: ModelInfo) -> list[str]:
    """Contradictions that would make every plain request fail."""
    faults = []
    defaults, limits = info.defaults, info.limits
    for name in ("width", "height", "steps", "guidance_scale"):
        least, most = getattr(limits, f"min_{name}"), getattr(limits, f"max_{name}")
        usual = getattr(defaults, name)
        if least > most:
            faults.append(f"limits: the largest {name}, {most}, is less than the least, {least}")
        elif not least <= usual <= most:
            faults.append(f"defaults.{name}: {usual} is outside {least} to {most}")
    if limits.min_lora_strength > limits.max_lora_strength:
        faults.append("limits.maxLoraStrength: is less than minLoraStrength")
    if limits.size_multiple < 1:
        return [*faults, "limits.sizeMultiple: expected at least 1"]
    for name in ("width", "height"):
        if getattr(defaults, name) % limits.size_multiple > 0:
            faults.append(f"defaults.{name}: {getattr(defaults, name)} is no multiple of {limits.size_multiple}")
    return faults


class _Fields:
    """Reads fields of one object and collects what is wrong; a faulty field reads as something harmless."""

    def __init__(self, value: object, path: str, faults: list[str]) -> None:
        self.path, self.faults = path, faults
        self.json: dict[str, Any] = value if isinstance(value, dict) else {}
        if not isinstance(value, dict):
            faults.append(f"{path[:-1] or 'the file'}: expected an object, got {json.dumps(value)}")

    def object(self, key: str, fallback: dict[str, Any] | None = None) -> "_Fields":
        return _Fields(self.json.get(key, fallback), f"{self.path}{key}.", self.faults)

    def objects(self, key: str) -> list["_Fields"]:
        value = self._checked(key, "a list", lambda found: isinstance(found, list), [])
        return [_Fields(entry, f"{self.path}{key}[{i}].", self.faults) for i, entry in enumerate(value)]

    def text(self, key: str, pattern: re.Pattern[str] = re.compile(r".+", re.DOTALL)) -> str:
        return self._checked(key, "a text", lambda found: isinstance(found, str) and pattern.fullmatch(found), "")

    def texts(self, key: str) -> list[str]:
        def fits(found: object) -> bool:
            return isinstance(found, list) and all(isinstance(entry, str) for entry in found)

        return self._checked(key, "a list of texts", fits, [])

    def boolean(self, key: str) -> bool:
        return self._checked(key, "true or false", lambda found: isinstance(found, bool), False)

    def natural(self, key: str) -> int:
        def fits(found: object) -> bool:
            return isinstance(found, int) and not isinstance(found, bool) and 0 <= found <= _MAX_UINT32

        return self._checked(key, f"an integer from 0 to {_MAX_UINT32}", fits, 0)

    def number(self, key: str) -> float:
        def fits(found: object) -> bool:
            return isinstance(found, int | float) and not isinstance(found, bool) and math.isfinite(found)

        return float(self._checked(key, "a number", fits, 0))

    def _checked(self, key: str, expected: str, fits: Callable[[Any], object], fallback: Any) -> Any:
        value = self.json.get(key)
        if fits(value):
            return value
        self.faults.append(f"{self.path}{key}: expected {expected}, got {json.dumps(value)}")
        return fallback
