"""What a step costs in arithmetic, and what the card can do of it: the two sides of "how close to the limit are we?"."""

import math
import time
from collections.abc import Mapping
from typing import Any

import torch

# Tokens come in multiples of this, padded ones are computed like others.
_TOKEN_MULTIPLE = 32
_PIXELS_PER_TOKEN = 16
_TRIAL_COUNT = 5
_LEAST_TRIAL_S = 0.2


def step_flops(transformer: Mapping[str, Any], width: int, height: int, caption_tokens: int) -> float:
    """Floating-point operations of one forward pass: matrix products of the blocks and attention; the rest is below a percent."""
    dim, layers, refiners = transformer["dim"], transformer["n_layers"], transformer["n_refiner_layers"]
    hidden = int(dim / 3 * 8)
    image = _padded((width // _PIXELS_PER_TOKEN) * (height // _PIXELS_PER_TOKEN))
    caption = _padded(caption_tokens)
    every = image + caption
    tokens_through_blocks = layers * every + refiners * image + refiners * caption
    token_pairs = layers * every**2 + refiners * image**2 + refiners * caption**2
    return 2.0 * (4 * dim**2 + 3 * dim * hidden) * tokens_through_blocks + 4.0 * dim * token_pairs


def _padded(count: int) -> int:
    return math.ceil(count / _TOKEN_MULTIPLE) * _TOKEN_MULTIPLE


def matmul_ceiling(device: torch.device, dtype: torch.dtype, side: int) -> float:
    """Operations a second of a large square matrix product, the best of several trials: what no engine can pass."""
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))

    def seconds(count: int) -> float:
        _wait(device)
        started = time.perf_counter()
        for _ in range(count):
            a @ b
        _wait(device)
        return time.perf_counter() - started

    seconds(3)
    count = max(1, math.ceil(_LEAST_TRIAL_S / max(seconds(1), 1e-6)))
    return 2.0 * side**3 * count / min(seconds(count) for _ in range(_TRIAL_COUNT))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
