"""Large linear layers with weights of 8 bits: half the memory, and on Hopper and newer half the time of a matrix product. e4m3 with one
scale for each row of a matrix (Micikevicius et al. 2022, "FP8 formats for deep learning"). Nothing but torch."""

import re

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.functional import ScalingType

_EIGHT_BITS = torch.float8_e4m3fn
_LARGEST = torch.finfo(_EIGHT_BITS).max
# Nearly all weights of Z-Image's transformer and Qwen3's encoder. Embedders, modulation and the last layer are small and matter more.
_LARGE_LAYERS = re.compile(r"^(?:layers|noise_refiner|context_refiner)\.\d+\.(?:attention|feed_forward|self_attn|mlp)\.")
# A row of zeros divided by this is one of zeros.
_NOTHING = 1e-12
# The tile of an 8-bit matrix product.
_TILE = 16


class EightBitLinear(nn.Linear):
    """In place of a linear layer, with the numbers of that one. `multiplies`: in 8 bits too, the inputs scaled row by row; else the
    weights are widened at each use."""

    def __init__(self, linear: nn.Linear, *, multiplies: bool) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=False, device="meta")
        self.compute_dtype = linear.weight.dtype
        weight, scale = _in_eight_bits(linear.weight.detach())
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.register_buffer("scale", scale, persistent=False)
        self.bias = linear.bias
        self._multiplies = multiplies

    def forward(self, inputs: Tensor) -> Tensor:
        if not self._multiplies:
            return F.linear(inputs, (self.weight.float() * self.scale).to(inputs.dtype), self.bias)
        rows, scale = _in_eight_bits(inputs.reshape(-1, self.in_features))
        by_row = ScalingType.RowWise
        product = F.scaled_mm(rows, self.weight.t(), scale, by_row, self.scale.t(), by_row, output_dtype=inputs.dtype)
        product = product.reshape(*inputs.shape[:-1], self.out_features)
        return product if self.bias is None else product + self.bias


def shrink(model: nn.Module, device: torch.device) -> int:
    """Puts EightBitLinear on `device` in place of the large layers; how many bytes that saved."""
    multiplies = can_multiply(device)
    freed = 0
    # By name: a list of the layers would hold each until the end, beside what took its place.
    for path in [name for name, _ in model.named_modules()]:
        layer = model.get_submodule(path)
        fits = isinstance(layer, nn.Linear) and not isinstance(layer, EightBitLinear) and _LARGE_LAYERS.search(path)
        if not fits or layer.in_features % _TILE or layer.out_features % _TILE:
            continue
        parent, _, name = path.rpartition(".")
        small = EightBitLinear(layer.to(device), multiplies=multiplies)
        freed += layer.weight.nbytes - small.weight.nbytes - small.scale.nbytes
        setattr(model.get_submodule(parent), name, small)
    return freed


def can_multiply(device: torch.device) -> bool:
    """Hopper and newer have a product of matrices that are scaled row by row."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (9, 0)


def _in_eight_bits(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows, and what each was divided by. Few kernels: this is done for every input of every layer."""
    largest = torch.linalg.vector_norm(rows, float("inf"), dim=1, keepdim=True).float()
    scale = largest.clamp(min=_NOTHING) / _LARGEST
    # A scale that is rounded to 16 bits puts the largest value up to 450, which still becomes 448 and not NaN.
    return (rows / scale.to(rows.dtype)).to(_EIGHT_BITS), scale
