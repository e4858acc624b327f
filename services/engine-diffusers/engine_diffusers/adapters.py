"""LoRAs (Hu et al. 2021) over a model whose weights stay as they are: y = W x + Σ strength · (alpha / rank) · B A x. Added to the output
of each linear layer by a hook, so that any set with any strengths costs nothing to change, and a model without hooks is the bare one to
the byte. Reads the key styles that are about: diffusers and PEFT (`transformer.…lora_A.weight`), ComfyUI (`diffusion_model.…`), Kohya
(`lora_unet_…lora_down.weight` with `.alpha`).

Every key of the file must find its place. An adapter that fits nothing or only in part would draw pictures that look as if it had been
applied, so it is refused: FAILED_PRECONDITION/LORA_UNUSABLE."""

import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from .errors import listed, lora_unusable
from .folder import safetensors_fault
from .order import LoraUse

_PREFIX = re.compile(r"^(?:transformer|diffusion_model|base_model\.model|lora_unet|unet)[._]")
_ROLES = (
    (re.compile(r"\.(?:lora_A|lora_down|lora\.down)(?:\.default)?\.weight$"), "down"),
    (re.compile(r"\.(?:lora_B|lora_up|lora\.up)(?:\.default)?\.weight$"), "up"),
    (re.compile(r"\.alpha$"), "alpha"),
)

Pairs = Mapping[str, tuple[Tensor, Tensor]]
"""By name of the layer: A, and B with its scale."""


class Adapters:
    """The LoRA files of one model. `use` says which of them count from now on."""

    def __init__(self, model: nn.Module, path_of: Callable[[str], Path], capacity: int) -> None:
        self._layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
        self._path_of = path_of
        self._capacity = capacity
        self._files: OrderedDict[str, Pairs] = OrderedDict()
        self._active: tuple[LoraUse, ...] = ()
        self._hooks: list[Any] = []

    @property
    def active(self) -> bool:
        return len(self._hooks) > 0

    def use(self, loras: tuple[LoraUse, ...]) -> None:
        """Strength 0 is the bare model: such a LoRA is read, so that it fails like any other, and not applied."""
        if loras == self._active:
            return
        files = {lora.name: self._file(lora.name) for lora in loras}
        self._clear()
        by_layer: dict[str, list[tuple[float, Tensor, Tensor]]] = {}
        for lora in loras:
            for layer, (down, up) in files[lora.name].items() if lora.strength != 0 else ():
                by_layer.setdefault(layer, []).append((lora.strength, down, up))
        for layer, parts in by_layer.items():
            self._hooks.append(self._layers[layer].register_forward_hook(_adding(parts)))
        self._active = loras

    def forget(self) -> None:
        """Frees all files; those in use are read again when they are next asked for."""
        self._clear()
        self._files.clear()

    def _clear(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        self._active = ()

    def _file(self, name: str) -> Pairs:
        pairs = self._files.get(name) or read_lora(name, self._path_of(name), self._layers)
        self._files[name] = pairs
        self._files.move_to_end(name)
        while len(self._files) > self._capacity:
            self._files.popitem(last=False)
        return pairs


def _adding(parts: list[tuple[float, Tensor, Tensor]]) -> Callable[..., Tensor]:
    def hook(_layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        for strength, down, up in parts:
            output = output + strength * F.linear(F.linear(args[0], down), up)
        return output

    return hook


def read_lora(name: str, path: Path, layers: Mapping[str, nn.Linear]) -> Pairs:
    """In the precision and on the device of the layers."""
    fault = safetensors_fault(path)
    if fault:
        raise lora_unusable(name, fault)
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError, ValueError) as error:
        raise lora_unusable(name, f"its file cannot be read: {error}") from error
    found, unmatched = _match(tensors, layers)
    if not found:
        raise lora_unusable(name, f"none of its {len(tensors)} tensors belongs to this model")
    if unmatched:
        raise lora_unusable(name, f"{len(unmatched)} of its {len(tensors)} tensors do not belong to this model: {listed(unmatched)}")
    return {layer: _pair(name, layer, layers[layer], parts) for layer, parts in found.items()}


def _match(tensors: Mapping[str, Tensor], layers: Mapping[str, nn.Linear]) -> tuple[dict[str, dict[str, Tensor]], list[str]]:
    # Kohya writes every dot of a layer's path as an underscore.
    by_flat_name = {layer.replace(".", "_"): layer for layer in layers}
    found: dict[str, dict[str, Tensor]] = {}
    unmatched: list[str] = []
    for key, tensor in tensors.items():
        pattern, role = next(((pattern, role) for pattern, role in _ROLES if pattern.search(key)), (None, ""))
        path = _PREFIX.sub("", pattern.sub("", key)) if pattern else None
        layer = by_flat_name.get(path.replace(".", "_")) if path is not None else None
        if layer is None:
            unmatched.append(key)
        else:
            found.setdefault(layer, {})[role] = tensor
    return found, unmatched


def _pair(name: str, layer: str, linear: nn.Linear, parts: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    down, up = parts.get("down"), parts.get("up")
    if down is None or up is None:
        raise lora_unusable(name, f"{layer} has only one half of its pair")
    if down.ndim == 4 and up.ndim == 4:  # a convolution of 1 × 1 is a linear layer
        down, up = down.flatten(1), up.flatten(1)
    fits = down.ndim == 2 and up.ndim == 2 and up.shape[1] == down.shape[0]
    if not fits or (up.shape[0], down.shape[1]) != tuple(linear.weight.shape):
        shapes = [" × ".join(map(str, tensor.shape)) for tensor in (linear.weight, up, down)]
        raise lora_unusable(name, f"{layer} is {shapes[0]}, its pair {shapes[1]} and {shapes[2]}")
    rank = down.shape[0]
    alpha = parts.get("alpha", torch.tensor(float(rank)))
    if alpha.numel() != 1:
        raise lora_unusable(name, f"{layer} has an alpha of {alpha.numel()} numbers")
    # Weights in 8 bits are stored so, not computed with.
    to = {"dtype": getattr(linear, "compute_dtype", linear.weight.dtype), "device": linear.weight.device}
    pair = down.to(**to), (up.float() * (float(alpha) / rank)).to(**to)
    if not all(torch.isfinite(tensor).all() for tensor in pair):
        raise lora_unusable(name, f"{layer} holds values that are not finite")
    return pair
