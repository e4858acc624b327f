"""Is a request one this engine can draw? The node has filled in every default, so zero is an error here. Every violation at once;
unknown names are NOT_FOUND with what exists."""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import Violation, bad_request, clip, not_found
from .manifest import Limits, ModelInfo

LATENT_CHANNELS = 16
PIXELS_PER_LATENT = 8

_FLOAT_BYTES = 4
_MAX_PROMPT_BYTES = 8192
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{0,128}")


@dataclass(frozen=True)
class LoraUse:
    name: str
    strength: float


@dataclass(frozen=True)
class Drawing:
    """Exact orders."""

    prompt: str
    negative_prompt: str
    width: int
    height: int
    steps: int
    guidance_scale: float
    loras: tuple[LoraUse, ...]
    noises: tuple[np.ndarray, ...]
    """Initial noise, one a picture: float32 of shape [1, 16, height / 8, width / 8]."""


def order_of(request: Any, model: ModelInfo) -> Drawing:
    violations = _violations(request, model)
    if violations:
        raise bad_request(violations)
    known = [lora.name for lora in model.loras]
    unknown = [lora.name for lora in request.loras if lora.name not in known]
    if unknown:
        raise not_found("UNKNOWN_LORA", "lora", unknown[0], known)
    shape = (1, LATENT_CHANNELS, request.height // PIXELS_PER_LATENT, request.width // PIXELS_PER_LATENT)
    return Drawing(
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        width=request.width,
        height=request.height,
        steps=request.steps,
        guidance_scale=request.guidance_scale,
        loras=tuple(LoraUse(lora.name, lora.strength) for lora in request.loras),
        noises=tuple(np.frombuffer(item.latents, dtype="<f4").reshape(shape) for item in request.items),
    )


def _violations(request: Any, model: ModelInfo) -> list[Violation]:
    limits = model.limits
    found: list[Violation] = []

    def expect(holds: bool, field: str, expected: str, got: object) -> None:
        if not holds:
            found.append(Violation(field, f"expected {expected}, got {got}"))

    expect(
        _REQUEST_ID.fullmatch(request.request_id) is not None,
        "request_id",
        "up to 128 of [A-Za-z0-9._:-]",
        f'"{clip(request.request_id, 140)}"',
    )
    prompt_bytes = len(request.prompt.encode())
    expect(1 <= prompt_bytes <= _MAX_PROMPT_BYTES, "prompt", f"1 to {_MAX_PROMPT_BYTES} bytes", prompt_bytes)
    negative_bytes = len(request.negative_prompt.encode())
    if not model.negative_prompt:
        expect(negative_bytes == 0, "negative_prompt", f"none, as {model.name} has no use for it", f"{negative_bytes} bytes")
    else:
        expect(negative_bytes <= _MAX_PROMPT_BYTES, "negative_prompt", f"at most {_MAX_PROMPT_BYTES} bytes", negative_bytes)
    for name in ("width", "height"):
        value, least, most = getattr(request, name), getattr(limits, f"min_{name}"), getattr(limits, f"max_{name}")
        fits = value > 0 and least <= value <= most and value % limits.size_multiple == 0
        expect(fits, name, f"a multiple of {limits.size_multiple} from {least} to {most}", value)
    expect(
        request.steps > 0 and limits.min_steps <= request.steps <= limits.max_steps,
        "steps",
        f"an integer from {limits.min_steps} to {limits.max_steps}",
        request.steps,
    )
    _expect_between(found, "guidance_scale", request.guidance_scale, limits.min_guidance_scale, limits.max_guidance_scale)
    count = len(request.items)
    expect(1 <= count <= limits.max_image_count, "items", f"1 to {limits.max_image_count}", count)
    found += _lora_violations(request.loras, limits)
    return found or _latent_violations(request)


def _lora_violations(loras: Any, limits: Limits) -> list[Violation]:
    if len(loras) > limits.max_loras:
        return [Violation("loras", f"expected at most {limits.max_loras}, got {len(loras)}")]
    found: list[Violation] = []
    names: set[str] = set()
    for i, lora in enumerate(loras):
        _expect_between(found, f"loras[{i}].strength", lora.strength, limits.min_lora_strength, limits.max_lora_strength)
        if lora.name in names:
            found.append(Violation(f"loras[{i}].name", f'expected each adapter once, got "{clip(lora.name, 140)}"'))
        names.add(lora.name)
    return found


def _latent_violations(request: Any) -> list[Violation]:
    expected_bytes = LATENT_CHANNELS * (request.height // PIXELS_PER_LATENT) * (request.width // PIXELS_PER_LATENT) * _FLOAT_BYTES
    return [
        Violation(
            f"items[{i}].latents",
            f"expected {expected_bytes} bytes for {request.width}x{request.height}, got {len(item.latents)}",
        )
        for i, item in enumerate(request.items)
        if len(item.latents) != expected_bytes
    ]


def _expect_between(found: list[Violation], field: str, value: float, least: float, most: float) -> None:
    # NaN fails both comparisons.
    if not least <= value <= most:
        expected = f"{least:g}" if least == most else f"a number from {least:g} to {most:g}"
        found.append(Violation(field, f"expected {expected}, got {value:g}"))
