"""Exceptions of torch's own types: what is tried again, what is told, and what ends the process."""

import gc
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from conftest import MODEL_DIR, draw, drawing, quiet

from engine_diffusers.config import Options
from engine_diffusers.drawing import Checkpoint, Model
from engine_diffusers.errors import Code, StatusError
from engine_diffusers.faults import Attempts, is_context_fault, is_out_of_memory, translate
from engine_diffusers.loading import load
from engine_diffusers.order import LoraUse
from engine_diffusers.suspended import suspended
from engine_diffusers.z_image import ZImageModel

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
        (torch.AcceleratorError("CUDA error: the launch timed out and was terminated"), False, True),
        (torch.AcceleratorError("CUDA error: unknown error"), False, True),
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


def test_what_failed_holds_no_tensors() -> None:
    try:
        try:
            raise OUT_OF_MEMORY
        except torch.OutOfMemoryError:
            raise StatusError(Code.RESOURCE_EXHAUSTED, "OUT_OF_MEMORY", "short") from None
    except StatusError as error:
        told = translate(error, quiet)
    assert (told.__cause__, told.__context__, told.__traceback__) == (None, None, None)


def test_a_decoding_that_failed_in_tiles_leaves_none_for_the_next(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(model._vae, "decode", Failing(model._vae.decode, 2, OUT_OF_MEMORY))
        with pytest.raises(StatusError, match="memory did not suffice"):
            draw(model, drawing(steps=1))
    assert not model._vae.use_tiling


def test_reading_a_prompt_is_tried_again_with_the_lora_files_freed_too(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    order = drawing(loras=(LoraUse("pastel", 1.0),))
    expected, _ = draw(model, order)
    model._captions.forget()
    failing = Failing(model._captions._encode, 1, OUT_OF_MEMORY)
    files: list[int] = []
    monkeypatch.setattr(model._captions, "_encode", lambda prompt: (files.append(len(model._adapters._files)), failing(prompt))[1])
    forgotten: list[bool] = []
    real = model._adapters.forget
    monkeypatch.setattr(model._adapters, "forget", lambda: (forgotten.append(True), real())[1])
    picture, _ = draw(model, order)
    assert picture.rgb == expected.rgb
    assert (len(files), forgotten) == (2, [True])


@pytest.mark.parametrize("error", [OUT_OF_MEMORY, RuntimeError("CUDA error: an illegal memory access was encountered"), ValueError("no")])
def test_a_load_that_fails_leaves_nothing_in_memory(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """A lost GPU context comes through as it is, so that the process ends; nothing is held while the exception still is."""
    loaded: list[weakref.ref[torch.nn.Module]] = []
    alive: list[bool] = []

    def warm_up(self: ZImageModel, _sizes: object) -> None:
        loaded.append(weakref.ref(self._transformer))
        raise error

    monkeypatch.setattr(ZImageModel, "warm_up", warm_up)
    monkeypatch.setattr("engine_diffusers.loading.free_cached", lambda _device: alive.extend(ref() is not None for ref in loaded))
    with pytest.raises(StatusError if isinstance(error, ValueError) else type(error)) as caught:
        load(str(MODEL_DIR), Options(weights="fp8", verify=False), quiet)
    assert alive == [False]
    assert is_context_fault(caught.value) == ("illegal" in str(error))


def test_what_fails_inside_a_pipeline_is_freed_at_once() -> None:
    held: list[weakref.ref[torch.Tensor]] = []

    def action(_tell: object) -> None:
        large = torch.zeros(1)
        held.append(weakref.ref(large))
        raise OUT_OF_MEMORY.with_traceback(None)

    gc.disable()
    try:
        attempts = Attempts(lambda: None)
        with attempts.one():
            list(suspended(action))
        OUT_OF_MEMORY.with_traceback(None)  # which is kept by this file
        assert attempts.failed
        assert held[0]() is None
    finally:
        gc.enable()


def test_lora_of_strength_0_is_compiled_as_none_is(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "_options", replace(model._options, compile="64x64"))
    stances: list[str] = []
    monkeypatch.setattr(torch.compiler, "set_stance", lambda stance: (stances.append(stance), nullcontext())[1])
    for strength, expected in ((0.0, 0), (1.0, 2)):
        draw(model, drawing(steps=2, loras=(LoraUse("pastel", strength),)))
        assert len(stances) == expected
