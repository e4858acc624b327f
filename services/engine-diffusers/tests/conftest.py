"""What the tests share: the embedded model, loaded once, on one thread."""

import os
from collections.abc import Iterator
from pathlib import Path

os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import pytest
import torch

from engine_diffusers.config import Options
from engine_diffusers.drawing import Drawn, Event, Model, Picture
from engine_diffusers.loading import load
from engine_diffusers.order import Drawing, LoraUse

MODEL_DIR = Path(__file__).resolve().parents[3] / "libs/embedded-model/z-image-tiny"
PROMPT = "a red circle on a blue background"


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def model() -> Iterator[Model]:
    loaded = load(str(MODEL_DIR), Options(), quiet)
    yield loaded
    loaded.release()


def quiet(*_args: object, **_fields: object) -> None:
    """A log nobody reads."""


def noise(seed: int, width: int = 128, height: int = 128) -> np.ndarray:
    generator = torch.Generator("cpu").manual_seed(seed)
    return torch.randn((1, 16, height // 8, width // 8), generator=generator).numpy()


def drawing(prompt: str = PROMPT, *, loras: tuple[LoraUse, ...] = (), steps: int = 8, seed: int = 1, **other: object) -> Drawing:
    width, height = int(str(other.pop("width", 128))), int(str(other.pop("height", 128)))
    noises = (noise(seed, width, height),)
    return Drawing(prompt, str(other.pop("negative_prompt", "")), width, height, steps, 0.0, loras, noises, **other)


def draw(model: Model, order: Drawing) -> tuple[Picture, Drawn]:
    events: list[Event] = list(model.draw(order))
    picture = next(event for event in events if isinstance(event, Picture))
    assert isinstance(events[-1], Drawn)
    return picture, events[-1]
