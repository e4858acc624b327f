"""The one thread that draws. It takes work in order; a drawing can be stopped or put aside between two forward passes while the event
loop answers whoever asks. Everything here but `_advance` runs on the event loop. A second one like it reads the next prompt ahead."""

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

from .drawing import Checkpoint, Drawn, Event, Picture, Step
from .errors import cancelled

T = TypeVar("T")


class ComputeThread:
    """`translate` makes of any exception what the caller is told; it runs on the thread, where the exception is fresh."""

    def __init__(self, loop: asyncio.AbstractEventLoop, translate: Callable[[BaseException], Exception], name: str = "compute") -> None:
        self._loop = loop
        self._translate = translate
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def run(self, action: Callable[[], T]) -> "asyncio.Future[T]":
        """Its result, or what `translate` says of its failure."""
        result: asyncio.Future[T] = self._loop.create_future()

        def work() -> None:
            try:
                value = action()
            except BaseException as error:
                self._post(_fail, result, self._translate(error))
            else:
                self._post(_succeed, result, value)

        self._work.put(work)
        return result

    def draw(self, events: Iterator[Event], on_event: Callable[[Step | Picture], None]) -> "DrawJob":
        return DrawJob(self, events, on_event)

    def _run(self) -> None:
        while True:
            self._work.get()()

    def _post(self, action: Callable[..., None], *args: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends, nobody listens
            self._loop.call_soon_threadsafe(action, *args)


class DrawJob:
    """One request on the thread."""

    def __init__(self, thread: ComputeThread, events: Iterator[Event], on_event: Callable[[Step | Picture], None]) -> None:
        self._thread = thread
        self._events = events
        self._on_event = on_event
        self._stopped = False
        self._pausing: asyncio.Future[bool] | None = None
        self._aside = False
        self.drawn: asyncio.Future[Drawn] = thread._loop.create_future()
        """Rejects with CANCELLED after `stop`."""
        thread._work.put(self._advance)

    def stop(self) -> None:
        """Before its next forward pass; at once when it is paused."""
        self._stopped = True
        if self._aside:
            self._drop()

    def pause(self) -> "asyncio.Future[bool]":
        """True when it is off the thread; False when it came to its end."""
        self._pausing = self._thread._loop.create_future()
        if self.drawn.done():
            self._pausing.set_result(False)
        return self._pausing

    def go_on(self) -> None:
        self._aside = False
        self._thread._work.put(self._advance)

    def _advance(self) -> None:
        """On the thread, until it ends or is put aside."""
        post = self._thread._post
        try:
            for event in self._events:
                match event:
                    case Checkpoint(may_pause):
                        if self._stopped:
                            raise cancelled()
                        if may_pause and self._pausing is not None:
                            return post(self._put_aside)
                    case Drawn():
                        return post(self._end, _succeed, event)
                    case _:
                        post(self._on_event, event)
            raise RuntimeError("the model ended without saying what it drew")
        except BaseException as error:
            self._events.close()  # type: ignore[attr-defined]
            post(self._end, _fail, self._thread._translate(error))

    def _put_aside(self) -> None:
        pausing, self._pausing = self._pausing, None
        if self._stopped:
            self._drop()
        self._aside = not self._stopped
        if pausing is not None:
            _succeed(pausing, self._aside)

    def _drop(self) -> None:
        self._aside = False
        self._events.close()  # type: ignore[attr-defined]
        self._end(_fail, cancelled())

    def _end(self, settle: Callable[..., None], value: object) -> None:
        settle(self.drawn, value)
        if self._pausing is not None:
            _succeed(self._pausing, False)


def _succeed(future: "asyncio.Future[T]", value: T) -> None:
    if not future.done():
        future.set_result(value)


def _fail(future: "asyncio.Future[T]", error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
