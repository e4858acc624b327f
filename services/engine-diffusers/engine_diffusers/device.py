"""Where and in which precision is drawn, and when may two engines promise each other the same bytes?"""

import hashlib
import json
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import diffusers
import torch
import transformers

from . import ENGINE_VERSION
from .config import Options
from .errors import Code, StatusError
from .folder import ModelFolder

_CLASS_LENGTH = 16
# Instruction sets that torch has kernels of its own for.
_KERNEL_FEATURES = re.compile(r"avx|avx2|fma|f16c|avx_vnni|avx512\w+|amx_\w+|asimd\w*|sve\w*|i8mm|bf16")


@dataclass(frozen=True)
class Placement:
    device: torch.device
    dtype: torch.dtype
    text_encoder_device: torch.device
    name: str
    """Of the GPU, or the processor's features."""


def place(options: Options) -> Placement:
    has_gpu = options.device != "cpu" and torch.cuda.is_available()
    if options.device == "cuda" and not has_gpu:
        raise StatusError(Code.FAILED_PRECONDITION, "MODEL_UNUSABLE", "DMESH_ENGINE_DEVICE is cuda, and torch finds no GPU here")
    device = torch.device("cuda", 0) if has_gpu else torch.device("cpu")
    wanted = {"bf16": torch.bfloat16, "fp32": torch.float32}
    dtype = wanted.get(options.dtype, torch.bfloat16 if has_gpu else torch.float32)
    if has_gpu:
        # Fixed, so that the same request gives the same bytes; no kernel is chosen by timing.
        torch.backends.cudnn.benchmark = False
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
    return Placement(
        device=device,
        dtype=dtype,
        text_encoder_device=torch.device("cpu") if options.text_encoder == "cpu" else device,
        name=torch.cuda.get_device_name(device) if has_gpu else " ".join(_processor_features()),
    )


def determinism_class(folder: ModelFolder, placement: Placement, options: Options) -> str:
    """Whatever touches the numbers. The number of threads does not: torch's kernels on the CPU give the same bits for any."""
    parts = [
        ENGINE_VERSION,
        torch.__version__,
        str(torch.version.cuda) if placement.device.type == "cuda" else "",
        diffusers.__version__,
        transformers.__version__,
        platform.system(),
        platform.machine(),
        placement.name,
        str(placement.dtype),
        placement.text_encoder_device.type,
        options.weights,
        options.text_encoder,
        options.attention,
        "compiled" if options.compile != "off" else "",
        str(options.tile_past_pixels),
        str(options.batch_count),
        folder.info.full_name,
        folder.digest,
    ]
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:_CLASS_LENGTH]
    return f"diffusers-{placement.device.type}-{digest}"


def _processor_features() -> list[str]:
    try:
        with open("/proc/cpuinfo") as info:
            found = re.search(r"^(?:flags|Features)\s*:(.*)$", info.read(), re.MULTILINE)
        features = sorted(name for name in found[1].split() if _KERNEL_FEATURES.fullmatch(name)) if found else []
    except OSError:
        features = []
    return features or [platform.processor()]


def synchronize(device: torch.device) -> None:
    """Until the GPU has done what it was told: a step is over when it is, and a cancel then holds before the next."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def on_stream(stream: Any) -> Iterator[None]:
    """What is told to the GPU meanwhile goes its own way beside what else runs there, and is done at the end. None: nothing of the kind."""
    if stream is None:
        yield
        return
    with torch.cuda.stream(stream):
        yield
        stream.synchronize()


def new_stream(device: torch.device) -> Any:
    """None without a GPU."""
    return torch.cuda.Stream(device) if device.type == "cuda" else None


def free_cached(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
