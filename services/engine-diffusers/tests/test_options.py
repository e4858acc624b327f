"""What an option buys, at tiny size: half the bytes and nearly the same picture; a prompt read ahead; pictures drawn together."""

import threading
import weakref
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import MODEL_DIR, PROMPT, draw, drawing, noise, quiet
from torch import nn

from engine_diffusers.config import Options
from engine_diffusers.drawing import Model, Picture, Step
from engine_diffusers.eight_bit import EightBitLinear, shrink
from engine_diffusers.loading import load
from engine_diffusers.order import Drawing, LoraUse

# Mean over all values, in steps of 8 bits.
CLOSE = 4.0


@pytest.fixture(scope="module")
def eight_bits() -> Iterator[Model]:
    loaded = load(str(MODEL_DIR), Options(weights="fp8", text_encoder="fp8"), quiet)
    yield loaded
    loaded.release()


def distance(one: bytes, other: bytes) -> float:
    a, b = (np.frombuffer(rgb, np.uint8).astype(int) for rgb in (one, other))
    return float(np.abs(a - b).mean())


def test_weights_in_8_bits_draw_nearly_the_same_picture_with_loras_too(model: Model, eight_bits: Model) -> None:
    for loras in ((), (LoraUse("pastel", 1.0),)):
        full, small = (draw(each, drawing(loras=loras))[0].rgb for each in (model, eight_bits))
        assert 0 < distance(full, small) < CLOSE
    assert model.determinism_class != eight_bits.determinism_class


def test_weights_in_8_bits_are_a_quarter_of_32(eight_bits: Model) -> None:
    large = [layer for layer in eight_bits._transformer.modules() if isinstance(layer, EightBitLinear)]
    assert len(large) == 8 * 7  # blocks of the tiny model, each with four layers of attention and three of its feed-forward
    assert all(layer.weight.dtype == torch.float8_e4m3fn for layer in large)
    block = nn.ModuleDict({"attention": nn.ModuleDict({"to_q": nn.Linear(64, 32)}), "adaLN_modulation": nn.Linear(64, 32)})
    several = nn.ModuleDict({"layers": nn.ModuleList([block]), "t_embedder": nn.ModuleDict({"mlp": nn.Linear(64, 32)})})
    assert shrink(several, torch.device("cpu")) == 32 * 64 * 3 - 32 * 4


def test_layers_shrink_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Never are two full ones on the device beside the small ones: a GPU that has room for 8 bits has room for the way there."""
    model = nn.ModuleDict({"layers": nn.ModuleList([nn.ModuleDict({"mlp": nn.ModuleDict({"up": nn.Linear(32, 32)})}) for _ in range(3)])})
    full = [weakref.ref(block["mlp"]["up"]) for block in model["layers"]]
    left: list[int] = []

    class Watched(EightBitLinear):
        def __init__(self, linear: nn.Linear, *, multiplies: bool) -> None:
            left.append(sum(ref() is not None for ref in full))
            super().__init__(linear, multiplies=multiplies)

    monkeypatch.setattr("engine_diffusers.eight_bit.EightBitLinear", Watched)
    shrink(model, torch.device("cpu"))
    assert left == [3, 2, 1]


@pytest.mark.parametrize("multiplies", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_8_bit_layer_gives_what_the_full_one_gives(multiplies: bool, dtype: torch.dtype) -> None:
    """`multiplies` is for GPUs; the CPU has the same product, slowly."""
    torch.manual_seed(0)
    full = nn.Linear(64, 96, dtype=dtype).requires_grad_(False)
    small = EightBitLinear(full, multiplies=multiplies)
    full.bias.zero_()
    inputs = torch.randn(2, 5, 64, dtype=dtype) * torch.tensor([1e-3, 1, 1e3, 1e5, 1], dtype=dtype)[None, :, None]
    assert not small(torch.zeros(1, 64, dtype=dtype)).any()
    expected, got = full(inputs).float(), small(inputs).float()
    assert got.shape == expected.shape
    each_row = (got - expected).norm(dim=-1) / expected.norm(dim=-1)
    assert float(each_row.max()) < 0.08


def test_a_prompt_is_read_ahead_beside_a_drawing_and_changes_no_byte(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [draw(model, drawing(prompt))[0].rgb for prompt in (PROMPT, "a green star")]
    captions = model._captions
    captions.forget()
    encoded: list[str] = []
    real = captions._encode
    monkeypatch.setattr(captions, "_encode", lambda prompt: (encoded.append(prompt), real(prompt))[1])
    events = model.draw(drawing())
    next(events)
    ahead = threading.Thread(target=lambda: model.prepare("a green star", ""))
    ahead.start()
    running = [event for event in events if hasattr(event, "rgb")][0].rgb
    ahead.join()
    assert sorted(encoded) == ["a green star", PROMPT]
    assert [running, draw(model, drawing("a green star"))[0].rgb] == expected
    assert len(encoded) == 2  # not read again


def several(count: int, **changes: object) -> Drawing:
    noises = tuple(noise(seed, 64, 64) for seed in range(count))
    return replace(drawing(width=64, height=64, steps=3), noises=noises, **changes)


def pictures(model: Model, order: Drawing) -> list[bytes]:
    return [event.rgb for event in model.draw(order) if isinstance(event, Picture)]


def test_pictures_drawn_together_are_those_drawn_one_by_one(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    for changes in ({}, {"loras": (LoraUse("pastel", 0.7),)}, {"guidance_scale": 2.0, "negative_prompt": "a blue square"}):
        alone = pictures(model, several(3, **changes))
        with monkeypatch.context() as patch:
            patch.setattr(model, "_options", replace(model._options, batch_count=2))
            sizes = count_inputs(model, patch)
            together = pictures(model, several(3, **changes))
        assert len(set(together)) == 3
        assert sizes == [size * (2 if "guidance_scale" in changes else 1) for size in (2, 2, 2, 1, 1, 1)]
        for one, other in zip(alone, together, strict=True):
            assert np.abs(np.frombuffer(one, np.uint8).astype(int) - np.frombuffer(other, np.uint8).astype(int)).max() <= 1


def test_of_pictures_drawn_together_all_is_told_in_order(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "_options", replace(model._options, batch_count=4))
    told = [
        (type(event).__name__, event.image_index, event.step if isinstance(event, Step) else 0)
        for event in model.draw(several(2))
        if isinstance(event, Step | Picture)
    ]
    assert told == [each for i in range(2) for each in (*(("Step", i, step) for step in (1, 2, 3)), ("Picture", i, 0))]


def test_short_of_memory_they_are_drawn_one_by_one(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = pictures(model, several(2))
    monkeypatch.setattr(model, "_options", replace(model._options, batch_count=2))
    sizes = count_inputs(model, monkeypatch, most=1)
    assert pictures(model, several(2)) == alone
    assert sizes == [2, 1, 1] * 3


def test_large_pictures_are_never_drawn_together(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "_options", replace(model._options, batch_count=2))
    monkeypatch.setattr("engine_diffusers.z_image._BATCHED_PIXELS", 64 * 64 - 1)
    sizes = count_inputs(model, monkeypatch)
    pictures(model, several(2))
    assert sizes == [1] * 6


def count_inputs(model: Model, patch: pytest.MonkeyPatch, most: int = 100) -> list[int]:
    """How many each forward pass has; more than `most` do not fit into memory."""
    sizes: list[int] = []
    real = model._transformer.forward

    def forward(inputs: list[torch.Tensor], *args: object, **named: object) -> object:
        sizes.append(len(inputs))
        if len(inputs) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.50 GiB.")
        return real(inputs, *args, **named)

    patch.setattr(model._transformer, "forward", forward)
    return sizes
