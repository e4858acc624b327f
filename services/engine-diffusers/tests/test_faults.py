"""Exceptions of torch's own types: what is tried again, what is told, and what ends the process."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import draw, drawing, quiet

from engine_diffusers.drawing import Checkpoint, Model
from engine_diffusers.errors import Code, StatusError
from engine_diffusers.faults import is_context_fault, is_out_of_memory, translate

OUT_OF_MEMORY = torch.OutOfMemoryError(
    "CUDA out of memory. Tried to allocate 1.50 GiB. GPU 0 has a total capacity of 15.77 GiB of which 512.00 MiB is free."
)


class Failing:
    """A callable that fails so many times before it does what it should."""

    def __init__(self, real: Callable[..., Any], count: int, error: Exception) -> None:
        self._real, self._left, self._error = real, count, error

    def __call__(self, *args: object, **named: object) -> Any:
        if self._left > 0:
            self._left -= 1
            raise self._error
        return self._real(*args, **named)


def test_out_of_memory_once_is_not_seen(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, _ = draw(model, drawing())
    transformer = model._transformer
    monkeypatch.setattr(transformer, "forward", Failing(transformer.forward, 1, OUT_OF_MEMORY))
    picture, _ = draw(model, drawing())
    assert picture.rgb == expected.rgb


def test_decoding_is_tried_again_in_tiles(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, _ = draw(model, drawing())
    vae = model._vae
    tiled: list[bool] = []
    failing = Failing(vae.decode, 1, OUT_OF_MEMORY)

    def decode(*args: object, **named: object) -> Any:
        tiled.append(vae.use_tiling)
        return failing(*args, **named)

    monkeypatch.setattr(vae, "decode", decode)
    picture, _ = draw(model, drawing())
    assert tiled == [False, True]
    assert len(picture.rgb) == len(expected.rgb)
    assert not vae.use_tiling


def test_out_of_memory_twice_is_told_with_its_figures_and_the_next_request_is_drawn(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(model._transformer, "forward", Failing(model._transformer.forward, 2, OUT_OF_MEMORY))
        with pytest.raises(StatusError) as caught:
            draw(model, drawing())
    assert (caught.value.code, caught.value.reason) == (Code.RESOURCE_EXHAUSTED, "OUT_OF_MEMORY")
    assert caught.value.metadata == {"needed_bytes": str(3 * 2**29), "free_bytes": str(2**29)}
    draw(model, drawing())


def test_a_large_picture_is_decoded_in_tiles_from_the_start(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    monkeypatch.setattr(model, "_options", replace(model._options, tile_past_pixels=64 * 64))
    enabled: list[bool] = []
    real = model._vae.enable_tiling
    monkeypatch.setattr(model._vae, "enable_tiling", lambda: (enabled.append(True), real()))
    draw(model, drawing(steps=1))
    assert enabled == [True]


@pytest.mark.parametrize(
    ("error", "memory", "context"),
    [
        (OUT_OF_MEMORY, True, False),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:120] DefaultCPUAllocator: can't allocate memory: 8 bytes"), True, False),
        (torch.AcceleratorError("CUDA error: an illegal memory access was encountered"), False, True),
        (RuntimeError("CUDA error: unspecified launch failure"), False, True),
        (RuntimeError("CUDA error: uncorrectable ECC error encountered"), False, True),
        (RuntimeError("CUDA error: device-side assert triggered"), False, True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling cublasSgemm"), False, True),
        (RuntimeError("CUDA error: out of memory"), True, False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False, False),
        (ValueError("the illegal address of a file"), False, False),
    ],
)
def test_kinds_of_faults(error: Exception, memory: bool, context: bool) -> None:
    assert is_out_of_memory(error) == memory
    assert is_context_fault(error) == context


def test_what_was_not_foreseen_is_internal() -> None:
    told = translate(RuntimeError("shapes"), quiet)
    assert isinstance(told, StatusError)
    assert (told.code, told.reason) == (Code.INTERNAL, "INTERNAL")


def test_before_every_forward_pass_there_is_a_checkpoint(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for name in ("_transformer", "_vae"):
        part = getattr(model, name)
        method = "forward" if name == "_transformer" else "decode"
        real = getattr(part, method)
        monkeypatch.setattr(part, method, lambda *a, real=real, name=name, **n: (calls.append(name), real(*a, **n))[1])
    for event in model.draw(drawing(steps=2)):
        if isinstance(event, Checkpoint):
            calls.append("checkpoint")
    assert calls == ["checkpoint", "checkpoint", "_transformer", "checkpoint", "_transformer", "checkpoint", "_vae"]
