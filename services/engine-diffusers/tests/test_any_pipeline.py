"""Models of other families, tiny and random: the same events, the same bytes for the same noise, cancel and pause at every step."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import draw, drawing, quiet
from tiny_folders import build

from engine_diffusers.config import Options
from engine_diffusers.drawing import Checkpoint, Model, Picture, Step
from engine_diffusers.errors import StatusError
from engine_diffusers.loading import load
from engine_diffusers.order import LoraUse


@pytest.fixture(scope="module", params=["stable-diffusion", "flux"])
def other(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    folder = tmp_path_factory.mktemp("model")
    build(request.param, folder)
    model = load(str(folder), Options(), quiet)
    yield model
    model.release()


def order(**changes: Any) -> Any:
    return replace(drawing("a cat", width=64, height=64, steps=3), guidance_scale=2.0, **changes)


def told(model: Model, what: Any) -> list[str]:
    return [
        f"step {e.step}/{e.total}" if isinstance(e, Step) else type(e).__name__ for e in model.draw(what) if not isinstance(e, Checkpoint)
    ]


def test_events_and_bytes(other: Model) -> None:
    assert told(other, order()) == ["step 1/3", "step 2/3", "step 3/3", "Picture", "Drawn"]
    first, drawn = draw(other, order())
    again, _ = draw(other, order())
    another, _ = draw(other, order(noises=drawing(seed=2, width=64, height=64).noises))
    assert first.rgb == again.rgb != another.rgb
    assert len(first.rgb) == 64 * 64 * 3
    assert drawn.prompt_tokens > 0


def test_paused_and_interleaved_it_is_the_same_picture(other: Model) -> None:
    alone, _ = draw(other, order())
    paused = other.draw(order())
    next(event for event in paused if isinstance(event, Step))
    between, _ = draw(other, order(noises=drawing(seed=2, width=64, height=64).noises, loras=(LoraUse("mine", 1.0),)))
    picture = next(event for event in paused if isinstance(event, Picture))
    assert picture.rgb == alone.rgb != between.rgb


def test_closed_in_the_middle_it_leaves_nothing_behind(other: Model) -> None:
    import threading

    alone, _ = draw(other, order())
    threads = threading.active_count()
    left = other.draw(order())
    next(event for event in left if isinstance(event, Step))
    left.close()  # type: ignore[attr-defined]
    assert threading.active_count() == threads
    assert draw(other, order())[0].rgb == alone.rgb


@pytest.mark.parametrize("where", ["backbone", "vae"])
def test_out_of_memory_once_costs_no_step_twice_and_decodes_in_tiles(other: Model, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    expected, _ = draw(other, order())
    pipe = other._pipe
    part, method = (pipe.vae, "decode") if where == "vae" else (other._backbone, "forward")
    tiled: list[bool] = []
    decode = pipe.vae.decode
    monkeypatch.setattr(pipe.vae, "decode", lambda *args, **named: (tiled.append(pipe.vae.use_tiling), decode(*args, **named))[1])
    monkeypatch.setattr(part, method, failing_at(2 if where == "backbone" else 1, getattr(part, method)))
    assert told(other, order()) == ["step 1/3", "step 2/3", "step 3/3", "Picture", "Drawn"]
    assert tiled[-1]
    monkeypatch.undo()
    assert draw(other, order())[0].rgb == expected.rgb  # whole again, and to the byte
    assert not pipe.vae.use_tiling


def failing_at(call: int, real: Any) -> Any:
    count = 0

    def failing(*args: object, **named: object) -> Any:
        nonlocal count
        count += 1
        if count == call:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.50 GiB.")
        return real(*args, **named)

    return failing


def test_out_of_memory_twice_is_told(other: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def short(*_args: object, **_named: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.50 GiB.")

    with monkeypatch.context() as patch:
        patch.setattr(other._backbone, "forward", short)
        with pytest.raises(StatusError) as caught:
            draw(other, order())
    assert (caught.value.reason, caught.value.metadata) == ("OUT_OF_MEMORY", {"needed_bytes": str(3 * 2**29)})
    draw(other, order())


def test_lora(other: Model) -> None:
    bare, _ = draw(other, order())
    nothing, _ = draw(other, order(loras=(LoraUse("mine", 0.0),)))
    full, _ = draw(other, order(loras=(LoraUse("mine", 1.0),)))
    assert nothing.rgb == bare.rgb != full.rgb


def test_weights_of_8_bits_are_refused(other: Model) -> None:
    with pytest.raises(StatusError, match="Z-Image family") as caught:
        load(str(other.folder.dir), Options(weights="fp8"), quiet)
    assert caught.value.reason == "MODEL_UNUSABLE"
    assert not other.prepare("a cat", "")


def test_settings_without_effect_are_told(other: Model) -> None:
    told: list[dict[str, object]] = []
    options = Options(attention="_native_cudnn", compile="64x64", text_encoder="cpu")
    load(str(other.folder.dir), options, lambda level, _msg, **fields: told.append(fields) if level == "warn" else None).release()
    assert [fields["without_effect"] for fields in told] == [["attention _native_cudnn", "compile 64x64", "text_encoder cpu"]]


def test_too_long_a_prompt_and_noise_that_is_none(other: Model) -> None:
    with pytest.raises(StatusError) as caught:
        draw(other, order(prompt="abcdefgh " * 60))
    assert caught.value.reason == "PROMPT_TOO_LONG"
    with pytest.raises(StatusError) as caught:
        draw(other, order(noises=(np.full((1, 16, 8, 8), np.nan, np.float32),)))
    assert caught.value.reason == "NAN_OUTPUT"
    draw(other, order())
