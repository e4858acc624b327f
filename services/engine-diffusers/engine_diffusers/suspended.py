"""Code that calls back, as a generator: each call back stops it until the next item is asked for. It needs a thread of its own for its
frames, but never runs at the same time as who iterates, so the GPU still does one thing at a time."""

import queue
import threading
from collections.abc import Callable, Generator
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Abandoned(BaseException):
    """Raised inside the code when the generator is closed, so that it unwinds. No `except Exception` on the way stops it."""


def suspended(action: Callable[[Callable[[T], None]], R]) -> Generator[T, None, R]:
    """Yields what `action` hands to the function that it is given, and returns or raises as it does."""
    to_action: queue.SimpleQueue[bool] = queue.SimpleQueue()
    from_action: queue.SimpleQueue[tuple[str, object]] = queue.SimpleQueue()

    def hand_over(item: T) -> None:
        from_action.put(("item", item))
        if not to_action.get():
            raise Abandoned

    # An exception is kept in no variable: it holds the frames that it went through, and they would hold it, with all of their tensors.
    def run() -> None:
        try:
            if not to_action.get():
                raise Abandoned
            from_action.put(("returned", action(hand_over)))
        except BaseException as error:
            from_action.put(("raised", error))

    thread = threading.Thread(target=run, name="pipeline", daemon=True)
    thread.start()
    try:
        while True:
            to_action.put(True)
            kind, value = from_action.get()
            if kind == "returned":
                return value  # type: ignore[return-value]
            if kind == "raised":
                try:
                    raise value  # type: ignore[misc]
                finally:
                    del value
            yield value  # type: ignore[misc]
    finally:
        if thread.is_alive():
            to_action.put(False)
            thread.join()
