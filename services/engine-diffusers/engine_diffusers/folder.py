"""Is a model folder whole? Asked before a byte of weights is loaded: every missing, cut or altered file is named at once."""

import hashlib
import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import listed, model_unusable
from .manifest import ManifestFault, ModelInfo, parse_manifest

_MANIFEST = "mesh.json"
_INDEX = "model_index.json"
_SHOWN_FILE_COUNT = 10


@dataclass(frozen=True)
class Component:
    """A part of a pipeline, as model_index.json lists it."""

    name: str
    library: str
    class_name: str
    weight_files: tuple[Path, ...]
    weight_bytes: int


@dataclass(frozen=True)
class ModelFolder:
    dir: Path
    info: ModelInfo
    digest: str
    """SHA-256 in hex of mesh.json: as it holds the digests, it stands for the whole folder."""
    pipeline_class: str
    components: dict[str, Component]

    @property
    def is_z_image(self) -> bool:
        return self.pipeline_class == "ZImagePipeline"

    @property
    def weight_bytes(self) -> int:
        return sum(component.weight_bytes for component in self.components.values())

    def lora_path(self, name: str) -> Path:
        return self.dir / next(lora.file for lora in self.info.loras if lora.name == name)


def read_folder(folder: str, *, verify: bool) -> ModelFolder:
    """FAILED_PRECONDITION/MODEL_UNUSABLE with a sentence that names the files."""
    path = Path(folder)
    try:
        manifest = (path / _MANIFEST).read_bytes()
    except OSError as error:
        raise model_unusable(f"expected a model folder with a {_MANIFEST} at {path}, found none that can be read") from error
    try:
        info = parse_manifest(manifest.decode("utf-8", "replace"))
    except ManifestFault as fault:
        raise model_unusable(f"{_MANIFEST} in {path}: {fault}") from fault
    index = _read_json(path, _INDEX)
    components, faults = _components(path, index)
    faults += [lora.file for lora in info.loras if not (path / lora.file).is_file()]
    if faults:
        raise model_unusable(f"model folder {path} lacks {listed(faults, _SHOWN_FILE_COUNT)}")
    weights = [file for component in components.values() for file in component.weight_files]
    broken = [fault for file in weights if (fault := safetensors_fault(file))]
    if broken:
        raise model_unusable(f"model folder {path}: {'; '.join(broken[:_SHOWN_FILE_COUNT])}")
    if verify:
        _verify(path, info, set(components))
    return ModelFolder(
        dir=path,
        info=info,
        digest=hashlib.sha256(manifest).hexdigest(),
        pipeline_class=str(index.get("_class_name", "")),
        components=components,
    )


def safetensors_fault(file: Path) -> str | None:
    """What is wrong with the file as a whole: not a safetensors file, or shorter or longer than its header says."""
    try:
        size = file.stat().st_size
        with file.open("rb") as opened:
            (header_bytes,) = struct.unpack("<Q", opened.read(8))
            if header_bytes > size:
                return f"{file.name} is cut: its header alone has {header_bytes} bytes, the file {size}"
            header = json.loads(opened.read(header_bytes))
        end = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
    except OSError as error:
        return f"{file.name} cannot be read: {error}"
    except (struct.error, ValueError, KeyError, TypeError, AttributeError):
        return f"{file.name} is no safetensors file"
    expected = 8 + header_bytes + end
    return None if size == expected else f"{file.name} is cut or longer: expected {expected} bytes, got {size}"


def _components(folder: Path, index: dict[str, Any]) -> tuple[dict[str, Component], list[str]]:
    components: dict[str, Component] = {}
    missing: list[str] = []
    for name, entry in index.items():
        if name.startswith("_") or not isinstance(entry, list) or len(entry) != 2 or entry[0] is None:
            continue
        library, class_name = (str(part) for part in entry)
        config = _config_file(class_name)
        if not (folder / name / config).is_file():
            missing.append(f"{name}/{config}")
        files, absent = _weight_files(folder, name) if config == "config.json" else ([], [])
        missing += absent
        size = sum(file.stat().st_size for file in files if file.is_file())
        components[name] = Component(name, library, class_name, tuple(files), size)
    if not components:
        missing.append(f"any component in {_INDEX}")
    return components, missing


def _config_file(class_name: str) -> str:
    if class_name.endswith("Scheduler"):
        return "scheduler_config.json"
    if "Tokenizer" in class_name:
        return "tokenizer_config.json"
    return "preprocessor_config.json" if "Processor" in class_name or "FeatureExtractor" in class_name else "config.json"


def _weight_files(folder: Path, name: str) -> tuple[list[Path], list[str]]:
    """The safetensors files of a component, and those of them that are not there."""
    for stem in ("diffusion_pytorch_model", "model"):
        index = folder / name / f"{stem}.safetensors.index.json"
        if index.is_file():
            shards = sorted(set(_read_json(folder, f"{name}/{index.name}").get("weight_map", {}).values()))
            return [folder / name / s for s in shards], [f"{name}/{s}" for s in shards if not (folder / name / s).is_file()]
        whole = folder / name / f"{stem}.safetensors"
        if whole.is_file():
            return [whole], []
    return [], [f"{name}/*.safetensors"]


def _verify(folder: Path, info: ModelInfo, components: set[str]) -> None:
    """Only what this engine reads: mesh.json may vouch for other engines' files as well."""
    for file, expected in info.digests.items():
        if file.split("/")[0] not in {*components, "loras", _INDEX}:
            continue
        try:
            with (folder / file).open("rb") as opened:
                digest = hashlib.file_digest(opened, "sha256").hexdigest()
        except OSError as error:
            raise model_unusable(f"expected to read {file} of model {info.name}, could not: {error}") from error
        if digest != expected:
            raise model_unusable(f"{file} of model {info.name}: expected SHA-256 {expected}, got {digest}")


def _read_json(folder: Path, file: str) -> dict[str, Any]:
    try:
        value = json.loads((folder / file).read_text("utf-8"))
    except OSError as error:
        raise model_unusable(f"model folder {folder} lacks {file}") from error
    except ValueError as error:
        raise model_unusable(f"{file} in {folder}: expected JSON, {error}") from error
    if not isinstance(value, dict):
        raise model_unusable(f"{file} in {folder}: expected a JSON object")
    return value
