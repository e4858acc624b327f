"""From what a decoder gives to what a caller may see: bytes, and only when there is a picture in them."""

import torch
from torch import Tensor

from .errors import numeric

# In steps of 8 bits: a channel that varies less is one flat value.
_BLANK_DEVIATION = 1.0


def expect_finite(values: Tensor, what: str) -> None:
    if not bool(torch.isfinite(values).all()):
        raise numeric("NAN_OUTPUT", f"{what} values that are not finite")


def to_rgb(image: Tensor) -> bytes:
    """[1, 3, height, width] in -1..1 to interleaved 8-bit RGB; rounds and clips as diffusers does, a half to the even side."""
    expect_finite(image, "the decoder gave")
    rgb = ((image[0].float() / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous()
    return expect_picture(rgb)


def expect_picture(rgb: Tensor) -> bytes:
    """uint8 [height, width, 3]; one flat colour means that nothing was drawn."""
    if bool((rgb.float().std(dim=(0, 1), correction=0) < _BLANK_DEVIATION).all()):
        raise numeric("BLANK_OUTPUT", "the picture is one flat colour")
    return rgb.cpu().numpy().tobytes()
