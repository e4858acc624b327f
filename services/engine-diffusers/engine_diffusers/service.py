"""EngineService: several models, one request at a time. The event loop answers at once whatever the compute thread does.

  idle ⇄ loading (Load, Unload), idle ⇄ busy (Generate); an idle engine without a model reports itself as empty.

A cancelled request keeps the engine busy until the compute thread has noticed, at most one step later; a request that comes in that
moment waits for it instead of being turned away. Beside that, one request may be paused: what it needs to go on waits in memory while
the engine is idle or busy with another, and its model stays as long as it does."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from . import ENGINE_VERSION
from .compute import ComputeThread, DrawJob
from .contract import SERVICE, EngineState, message
from .drawing import Drawn, Model, Picture, Step, now_ms
from .errors import Code, StatusError, Violation, bad_request, busy, clip, not_found, not_ready, stopped
from .log import Log
from .memory import MemoryReport
from .order import order_of


@dataclass
class _Running:
    request_id: str
    total: int
    model: Model
    step: int = 0
    progress_at_ms: float = field(default_factory=now_ms)
    cancelled: bool = False
    pausing: bool = False
    job: DrawJob | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class EngineService:
    def __init__(
        self,
        *,
        compute: ComputeThread,
        reading: ComputeThread,
        load_model: Callable[[str], Model],
        memory: Callable[[], MemoryReport],
        log: Log,
        on_idle: Callable[[], None] = lambda: None,
    ) -> None:
        self._compute = compute
        self._reading = reading
        self._load_model = load_model
        self._memory = memory
        self._log = log
        self._on_idle = on_idle
        self._models: dict[str, Model] = {}  # by full name, in the order of loading
        self._loading = False
        self._running: _Running | None = None
        self._paused: _Running | None = None
        self._completed_count = 0
        self._last_request_id = ""
        self._stopping = False

    def handler(self) -> grpc.GenericRpcHandler:
        """Bytes in, bytes out: a request that is none is INVALID_ARGUMENT, which grpcio would not say."""
        unary = {
            "Load": ("LoadRequest", self._load),
            "Unload": ("UnloadRequest", self._unload),
            "Pause": ("PauseRequest", self._pause),
            "Continue": ("ContinueRequest", self._continue),
            "Prepare": ("PrepareRequest", self._prepare),
            "Status": ("StatusRequest", self._status),
        }
        methods = {
            name: grpc.unary_unary_rpc_method_handler(self._answered(name, request, answer)) for name, (request, answer) in unary.items()
        }
        methods["Generate"] = grpc.unary_stream_rpc_method_handler(self._answered("Generate", "EngineGenerateRequest", self._generate))
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    async def stop(self) -> None:
        """Stops what runs or is paused and returns when the compute thread is free of it."""
        self._stopping = True
        for each in (self._running, self._paused):
            if each is not None and each.job is not None:
                each.job.stop()
                await each.ended.wait()

    def _answered(self, method: str, request_name: str, answer: Callable[..., Awaitable[Any]]) -> Any:
        async def handle(data: bytes, context: grpc.aio.ServicerContext) -> bytes | None:
            try:
                try:
                    request = message(request_name).FromString(data)
                except DecodeError as error:
                    raise bad_request([Violation("", f"expected a {request_name}, got bytes that are none")]) from error
                response = await answer(request, context)
            except StatusError as error:
                self._log("debug", "call ended", method=method, code=error.code.name, reason=error.reason, error=error.text)
                trailers = (("grpc-status-details-bin", error.details()),)
                await context.abort(error.code, error.text, trailing_metadata=trailers)
            return None if response is None else response.SerializeToString()

        return handle

    async def _load(self, request: Any, _context: object) -> Any:
        if not request.model_dir.startswith("/"):
            got = json.dumps(clip(request.model_dir, 140))
            raise bad_request([Violation("model_dir", f"expected an absolute path, got {got}")])
        if self._at_work:
            raise busy("it is at work")
        started_at_ms = now_ms()
        self._loading = True
        try:
            # Shielded: a caller that leaves does not stop a load, and the engine stays busy until it is over.
            model = await self._to_its_end(self._compute.run(lambda: self._load_model(request.model_dir)))
            name = model.folder.info.full_name
            replaced = self._models.pop(name, None)  # loaded again, it is the last one
            self._models[name] = model
            if replaced is not None:
                await self._release(replaced)
        finally:
            self._loading = False
        load_ms = now_ms() - started_at_ms
        self._log("info", "model loaded", model=name, determinism_class=model.determinism_class, load_ms=round(load_ms))
        return message("LoadResponse")(model=model.folder.info.to_message(), load_ms=load_ms)

    async def _unload(self, request: Any, _context: object) -> Any:
        if self._at_work:
            raise busy("it is at work")
        self._loading = True
        try:
            while (leaving := self._find(request)) is not None:
                del self._models[leaving.folder.info.full_name]
                await self._release(leaving)
                self._log("info", "model unloaded", model=leaving.folder.info.full_name)
        finally:
            self._loading = False
        return message("UnloadResponse")()

    async def _release(self, model: Model) -> None:
        await self._to_its_end(self._reading.run(lambda: None))  # when it reads no prompt for it any more
        await self._to_its_end(self._compute.run(model.release))

    async def _to_its_end(self, work: "asyncio.Future[Any]") -> Any:
        """Also when the caller has left meanwhile: the state must not say idle before it is."""
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            await asyncio.wait([work])
            raise

    def _find(self, request: Any) -> Model | None:
        """The one loaded last, where no revision is named."""
        for model in reversed(self._models.values()):
            info = model.folder.info
            if info.name == request.model and request.revision in ("", info.revision):
                return model
        return None

    async def _generate(self, request: Any, context: grpc.aio.ServicerContext) -> None:
        while self._running is not None and self._running.cancelled:
            await self._running.ended.wait()
        if self._stopping:
            raise stopped()
        if self._running is not None:
            raise busy(f"it draws {self._running.request_id}")
        if self._loading or not self._models:
            raise not_ready("loading" if self._loading else "empty")
        model = self._find(request)
        if model is None:
            wanted = f"{request.model}@{request.revision}" if request.revision else request.model
            raise not_found("UNKNOWN_MODEL", "model", wanted, list(self._models))
        drawing = order_of(request, model.folder.info)

        running = _Running(request.request_id, drawing.steps, model)
        outgoing: asyncio.Queue[Any] = asyncio.Queue()
        event = message("EngineGenerateEvent")

        def on_event(happened: Step | Picture) -> None:
            running.progress_at_ms = now_ms()
            if isinstance(happened, Step):
                running.step = happened.step
                outgoing.put_nowait(event(step=message("EngineStep")(**vars(happened))))
            else:
                parts = {"image_index": happened.image_index, "width": happened.width, "height": happened.height}
                outgoing.put_nowait(event(image=message("RgbImage")(**parts, data=happened.rgb)))

        def on_end(drawn: "asyncio.Future[Drawn]") -> None:
            drawn.exception()  # read: a caller that has left does not ask for it
            self._free(running)
            outgoing.put_nowait(None)

        self._running = running
        running.job = job = self._compute.draw(model.draw(drawing), on_event)
        job.drawn.add_done_callback(on_end)
        try:
            while (next_event := await outgoing.get()) is not None:
                await context.write(next_event.SerializeToString())
            try:
                drawn = await job.drawn
            except StatusError as error:
                raise (stopped() if self._stopping and error.code is Code.CANCELLED else error) from None
            self._completed_count += 1
            await context.write(event(done=message("EngineDone")(**vars(drawn))).SerializeToString())
            figures = {name: round(value) for name, value in vars(drawn).items()}
            self._log("debug", "picture drawn", request_id=request.request_id, images=len(drawing.noises), **figures)
        finally:
            # Cancelled, or its caller cannot be written to any more: nobody waits for the rest.
            if not job.drawn.done():
                running.cancelled = True
                job.stop()

    async def _pause(self, request: Any, _context: object) -> Any:
        return message("PauseResponse")(paused=await self._put_aside(request.request_id))

    async def _put_aside(self, request_id: str) -> bool:
        running = self._running
        if self._paused is not None or running is None or running.job is None or running.request_id != request_id:
            return False
        if running.pausing:
            return False  # another call is about to
        running.pausing = True

        def on_paused(off: "asyncio.Future[bool]") -> None:
            running.pausing = False
            if off.result() and not running.ended.is_set():
                self._paused, self._running = running, None

        # Not left to this call alone: its caller may leave while the request is on its way off.
        paused = running.job.pause()
        paused.add_done_callback(on_paused)
        return await asyncio.shield(paused)

    async def _continue(self, request: Any, _context: object) -> Any:
        paused = self._paused
        if paused is None or paused.job is None or paused.request_id != request.request_id or paused.cancelled:
            return message("ContinueResponse")(continued=False)
        if self._running is not None or self._loading:
            raise busy("it is at work")
        self._paused, self._running = None, paused
        paused.progress_at_ms = now_ms()
        paused.job.go_on()
        return message("ContinueResponse")(continued=True)

    async def _prepare(self, request: Any, _context: object) -> Any:
        model = None if self._loading else self._find(request)
        prepared = False
        if model is not None:
            try:
                prepared = await self._reading.run(lambda: model.prepare(request.prompt, request.negative_prompt))
            except StatusError as error:
                self._log("debug", "could not prepare", error=error.text)  # the request itself will say so
        return message("PrepareResponse")(prepared=prepared)

    @property
    def _at_work(self) -> bool:
        return self._loading or self._running is not None or self._paused is not None

    def _free(self, running: _Running) -> None:
        self._last_request_id = running.request_id
        if self._paused is running:
            self._paused = None
        elif self._running is running:
            self._running = None
        running.ended.set()
        if not self._at_work:
            self._on_idle()

    async def _status(self, _request: object, _context: object) -> Any:
        running = self._running
        models = list(self._models.values())
        state: int
        if running is not None:
            state = EngineState.BUSY
        elif self._loading:
            state = EngineState.LOADING
        else:
            state = EngineState.IDLE if models else EngineState.EMPTY
        memory = self._memory()
        return message("StatusResponse")(
            engine="diffusers",
            version=ENGINE_VERSION,
            state=state,
            determinism_class=models[-1].determinism_class if models else "",
            models=[model.folder.info.to_message() for model in models],
            request_id=running.request_id if running else "",
            step=running.step if running else 0,
            total=running.total if running else 0,
            since_progress_ms=now_ms() - running.progress_at_ms if running else 0,
            memory_used_bytes=memory.used_bytes,
            memory_total_bytes=memory.total_bytes,
            device=memory.device,
            completed_count=self._completed_count,
            last_request_id=self._last_request_id,
            paused_request_id=self._paused.request_id if self._paused else "",
            can_pause=True,
            memory_peak_bytes=memory.peak_bytes,
            utilisation_ratio=memory.utilisation_ratio,
            temperature_celsius=memory.temperature_celsius,
            can_prepare=True,
        )
