"""What an option buys, at tiny size: half the bytes and nearly the same picture; a prompt that was read ahead."""

import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from conftest import MODEL_DIR, PROMPT, draw, drawing, quiet
from torch import nn

from engine_diffusers.config import Options
from engine_diffusers.drawing import Model
from engine_diffusers.eight_bit import EightBitLinear, shrink
from engine_diffusers.loading import load
from engine_diffusers.order import LoraUse

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


@pytest.mark.parametrize("multiplies", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_8_bit_layer_gives_what_the_full_one_gives(multiplies: bool, dtype: torch.dtype) -> None:
    """`multiplies` is for GPUs; the CPU has the same product, slowly."""
    torch.manual_seed(0)
    full = nn.Linear(64, 96, dtype=dtype).requires_grad_(False)
    small = EightBitLinear(full, multiplies=multiplies)
    inputs = torch.randn(2, 5, 64, dtype=dtype) * torch.tensor([1e-3, 1, 1e3, 1e5, 1], dtype=dtype)[None, :, None]
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
