"""What can be set from outside; the node sets socket and parent for the engine it starts. docs/operations.md has the list."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .log import LEVELS

# The kernel's limit on a unix socket's path (sun_path), less the final zero.
_MAX_SOCKET_PATH_BYTES = 107


class ConfigError(Exception):
    """Every fault at once."""


@dataclass(frozen=True)
class Config:
    socket_path: str
    parent_pid: int
    log_level: str
    thread_count: int
    options: "Options"


@dataclass(frozen=True)
class Options:
    """How models are held and drawn. Each says what it costs and what it buys. Of other families than Z-Image, fp8 is refused, and
    text_encoder cpu, attention and compile have no effect, which Load says in the log."""

    device: str = "auto"
    """auto, cuda or cpu. auto: the GPU that CUDA_VISIBLE_DEVICES names, without one the CPU; cuda: no GPU is an error."""

    dtype: str = "auto"
    """auto, bf16 or fp32. bf16 halves memory and is several times faster on a GPU's matrix units; fp32 gives engine-onnx's
    numbers. auto: bf16 on a GPU, fp32 on the CPU. Never fp16: activations of Z-Image pass its largest number."""

    weights: str = "full"
    """full or fp8. fp8 holds the large layers of Z-Image's transformer in 8 bits: 6 GiB in place of 11.5 for Z-Image-Turbo. On
    Hopper and newer they are multiplied in 8 bits too, up to twice as fast; elsewhere they are widened at each use, which costs
    time. Draws close to the full weights, not equal; small detail suffers first. Other families are refused with it."""

    text_encoder: str = "auto"
    """auto, cpu or fp8. Either way GPU memory is freed, 7.5 GiB with Z-Image-Turbo being its share: cpu frees all of it, so that
    16 GB suffice, and costs seconds for each new prompt (prompts seen lately cost nothing, those of staged requests are read
    ahead); fp8 frees 3.3 GiB, costs little time, and shifts what the picture shows by a little."""

    prompt_cache_count: int = 64
    """Embeddings of the prompts used last, at most 2.6 MB each. Saves the text encoder when a prompt comes again."""

    attention: str = "native"
    """Attention kernel as diffusers names them: native, _native_cudnn, flash, _flash_3 … native is there everywhere; on
    Hopper _native_cudnn and _flash_3 are quicker. Another kernel draws other bytes."""

    compile: str = "off"
    """off, or sizes such as 1024x1024,768x768 whose steps are drawn once at Load. torch.compile of the repeated blocks: 10 to
    30 % less time a step on a GPU, tens of seconds a size at Load. Other sizes compile when they first come. Requests with a
    LoRA run uncompiled."""

    batch_count: int = 1
    """So many pictures of one request, up to 512 by 512, go through the transformer together: all that must be equal for that
    (model, LoRAs, size, caption, guidance, steps) is. Buys a better used GPU at small sizes, most on large cards; costs that much
    more memory, a coarser cancel and progress, and that a picture of several may differ in its lowest bits from the same one drawn
    alone. The same request still gives the same bytes. 1: each by itself."""

    tile_past_pixels: int = 2048 * 2048
    """Pictures of more pixels are decoded in tiles: memory of the decoder stays that of one tile, seams may show faintly. The
    bound is part of the determinism class."""

    lora_cache_count: int = 8
    """LoRA files kept in memory; tens to hundreds of MB each on the device of the transformer."""

    verify: bool = True
    """Checks each file against the digest in mesh.json at Load, about a second a GB. Off: only its length is checked."""


def parse_config(env: Mapping[str, str] = os.environ) -> Config:
    faults: list[str] = []

    def text(name: str, fallback: str) -> str:
        value = env.get(name, "")
        return value if value != "" else fallback

    def choice(name: str, fallback: str, allowed: tuple[str, ...]) -> str:
        value = text(name, fallback)
        if value not in allowed:
            faults.append(f'{name}: expected one of {", ".join(allowed)}, got "{value}"')
        return value

    def integer(name: str, fallback: int, least: int, most: int) -> int:
        value = text(name, str(fallback))
        if not value.isascii() or not value.isdigit() or not least <= int(value) <= most:
            faults.append(f'{name}: expected an integer from {least} to {most}, got "{value}"')
            return fallback
        return int(value)

    socket_path = text("DMESH_ENGINE_SOCKET", "/tmp/dmesh-engine.sock")
    if not socket_path.startswith("/") or len(socket_path.encode()) > _MAX_SOCKET_PATH_BYTES:
        faults.append(f'DMESH_ENGINE_SOCKET: expected an absolute path of at most {_MAX_SOCKET_PATH_BYTES} bytes, got "{socket_path}"')
    usual = Options()
    options = Options(
        device=choice("DMESH_ENGINE_DEVICE", usual.device, ("auto", "cuda", "cpu")),
        dtype=choice("DMESH_ENGINE_DTYPE", usual.dtype, ("auto", "bf16", "fp32")),
        weights=choice("DMESH_ENGINE_WEIGHTS", usual.weights, ("full", "fp8")),
        text_encoder=choice("DMESH_ENGINE_TEXT_ENCODER", usual.text_encoder, ("auto", "cpu", "fp8")),
        prompt_cache_count=integer("DMESH_ENGINE_PROMPT_CACHE", usual.prompt_cache_count, 0, 65_536),
        attention=text("DMESH_ENGINE_ATTENTION", usual.attention),
        compile=_sizes(text("DMESH_ENGINE_COMPILE", usual.compile), faults.append),
        batch_count=integer("DMESH_ENGINE_BATCH", usual.batch_count, 1, 4),
        tile_past_pixels=integer("DMESH_ENGINE_TILE_PAST", usual.tile_past_pixels, 0, 2**31 - 1),
        lora_cache_count=integer("DMESH_ENGINE_LORA_FILES", usual.lora_cache_count, 1, 64),
        verify=choice("DMESH_ENGINE_VERIFY", "on", ("on", "off")) == "on",
    )
    config = Config(
        socket_path=socket_path,
        parent_pid=integer("DMESH_ENGINE_PARENT_PID", 0, 0, 2**31 - 1),
        log_level=choice("DMESH_LOG_LEVEL", "info", LEVELS),
        thread_count=integer("DMESH_ENGINE_THREADS", 1, 1, 256),
        options=options,
    )
    if faults:
        raise ConfigError("\n".join(faults))
    return config


def compile_sizes(text: str) -> list[tuple[int, int]]:
    """Width and height of each size to warm up."""
    if text == "off":
        return []
    return [(int(width), int(height)) for width, height in (size.split("x") for size in text.split(","))]


def _sizes(text: str, fault: Callable[[str], None]) -> str:
    try:
        fits = all(side > 0 and side % 16 == 0 for size in compile_sizes(text) for side in size)
    except ValueError:
        fits = False
    if not fits:
        fault(f'DMESH_ENGINE_COMPILE: expected off or sizes, multiples of 16, such as 1024x1024,768x768, got "{text}"')
    return text
