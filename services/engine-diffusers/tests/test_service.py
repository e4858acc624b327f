"""Callers that leave in an awkward moment: the engine is free for the next one, or says that it is stopping."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import quiet
from test_bad_input import request

from engine_diffusers.compute import ComputeThread
from engine_diffusers.drawing import Checkpoint, Drawn, Event, Model, Step
from engine_diffusers.errors import StatusError
from engine_diffusers.faults import translate
from engine_diffusers.memory import MemoryReport
from engine_diffusers.service import EngineService


class Endless:
    """As a model: steps until it is stopped."""

    determinism_class = "endless"

    def __init__(self, model: Model) -> None:
        self.folder = model.folder

    def draw(self, _drawing: object) -> Iterator[Event]:
        for step in range(1, 10**9):
            yield Checkpoint(may_pause=True)
            yield Step(step, 10**9, 0, 1.0)
        yield Drawn(0, 0, 0, 0, 0)


class Caller:
    """As grpc's context; `write` does what it is told to."""

    def __init__(self, write: Callable[[], Any]) -> None:
        self._write = write
        self.written = asyncio.Event()

    async def write(self, _data: bytes) -> None:
        self.written.set()
        await asyncio.sleep(0)
        self._write()


def run(model: Model, scenario: Callable[[EngineService], Any]) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        compute, reading = (ComputeThread(loop, lambda error: translate(error, quiet)) for _ in range(2))
        memory = MemoryReport(0, 0, "none")
        service = EngineService(compute=compute, reading=reading, load_model=lambda _: Endless(model), memory=lambda: memory, log=quiet)
        await service._load(type("Load", (), {"model_dir": "/model"}), None)
        async with asyncio.timeout(60):
            await scenario(service)

    asyncio.run(main())


def order(model: Model, request_id: str) -> Any:
    return request(request_id=request_id, model=model.folder.info.name)


def test_a_caller_that_cannot_be_written_to_frees_the_engine(model: Model) -> None:
    async def scenario(service: EngineService) -> None:
        def broken() -> None:
            raise RuntimeError("the stream is gone")

        with pytest.raises(RuntimeError, match="gone"):
            await service._generate(order(model, "left"), Caller(broken))
        caller = Caller(lambda: None)
        second = asyncio.create_task(service._generate(order(model, "next"), caller))
        await caller.written.wait()
        await service.stop()
        with pytest.raises(StatusError, match="stopping"):
            await second

    run(model, scenario)


def test_who_waits_for_a_cancelled_one_is_not_begun_when_it_stops(model: Model) -> None:
    async def scenario(service: EngineService) -> None:
        caller = Caller(lambda: None)
        first = asyncio.create_task(service._generate(order(model, "first"), caller))
        await caller.written.wait()
        first.cancel()
        await asyncio.wait([first])
        waiting = asyncio.create_task(service._generate(order(model, "second"), Caller(lambda: None)))
        await service.stop()
        with pytest.raises(StatusError, match="stopping"):
            await waiting

    run(model, scenario)


@pytest.mark.parametrize("leaves", [False, True])
def test_a_pause_whose_caller_leaves_or_asks_twice(model: Model, leaves: bool) -> None:
    async def scenario(service: EngineService) -> None:
        caller = Caller(lambda: None)
        drawing = asyncio.create_task(service._generate(order(model, "mine"), caller))
        await caller.written.wait()
        first = asyncio.create_task(service._put_aside("mine"))
        await asyncio.sleep(0)
        if leaves:
            first.cancel()
            await asyncio.wait([first])
        else:
            assert sorted([await service._put_aside("mine"), await first]) == [False, True]
        while service._running is not None:
            await asyncio.sleep(0.01)
        status = await service._status(None, None)
        assert (status.paused_request_id, status.request_id) == ("mine", "")
        await service.stop()
        with pytest.raises(StatusError, match="stopping"):
            await drawing

    run(model, scenario)
