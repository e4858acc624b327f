"""What happens while a request is drawn, and how a model says so: as a generator of these events. It stops at each Checkpoint until it
is asked to go on, which is where a cancel and a pause take hold; all that it needs to go on lies in its own frame."""

from collections.abc import Iterator
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Protocol, TypeAlias

from .folder import ModelFolder
from .order import Drawing


@dataclass(frozen=True)
class Checkpoint:
    """Before a forward pass."""

    may_pause: bool
    """Before a step: pausing here frees the GPU for another request."""


@dataclass(frozen=True)
class Step:
    step: int
    total: int
    image_index: int
    step_ms: float


@dataclass(frozen=True)
class Picture:
    image_index: int
    width: int
    height: int
    rgb: bytes
    latents: Any
    """What was decoded, a tensor; None where the model does not tell."""


@dataclass(frozen=True)
class Drawn:
    """Always the last."""

    encode_ms: float
    denoise_ms: float
    decode_ms: float
    prompt_tokens: int
    forward_count: int


Event: TypeAlias = Checkpoint | Step | Picture | Drawn


class Model(Protocol):
    """A loaded model folder."""

    folder: ModelFolder
    determinism_class: str

    def draw(self, drawing: Drawing) -> Iterator[Event]: ...

    def prepare(self, prompt: str, negative_prompt: str) -> bool:
        """Reads the text of a request that comes next, on another thread than the one that draws; False when it cannot."""
        ...

    def release(self) -> None:
        """Frees its memory."""
        ...


def now_ms() -> float:
    return perf_counter() * 1000
