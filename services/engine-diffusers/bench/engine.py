"""An engine process and a caller of it, as a node is: over its unix socket, one request at a time."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import torch

from engine_diffusers.contract import SERVICE, EngineState, message
from engine_diffusers.order import LATENT_CHANNELS, PIXELS_PER_LATENT

_MAIN = Path(__file__).resolve().parents[1] / "main.py"
_LISTEN_TIMEOUT_S = 120
_UNLIMITED = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
_POLL_S = 0.0005


class Refused(Exception):
    """The engine's own sentence."""


@dataclass(frozen=True)
class Order:
    prompt: str
    side: int
    steps: int
    seed: int = 0


@dataclass(frozen=True)
class Timing:
    wall_ms: float
    encode_ms: float
    denoise_ms: float
    decode_ms: float
    prompt_tokens: int
    step_ms: tuple[float, ...]


class BenchEngine:
    """Starts it with these settings and loads the folder; Refused when it does not take them."""

    def __init__(self, model_dir: Path, env: Mapping[str, str]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="dmesh-bench-")
        socket = f"{self._folder.name}/engine.sock"
        self._log = open(f"{self._folder.name}/log", "w+b")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, str(_MAIN)],
            env={**os.environ, **env, "DMESH_ENGINE_SOCKET": socket, "DMESH_ENGINE_PARENT_PID": str(os.getpid())},
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        self._channel = grpc.insecure_channel(f"unix:{socket}", options=_UNLIMITED)
        try:
            self._await_socket(socket)
            loaded = self._call("Load", "LoadRequest", "LoadResponse", model_dir=str(model_dir.resolve()))
        except BaseException:
            self.close()
            raise
        self.model = loaded.model.name
        self.load_ms = loaded.load_ms

    def close(self) -> None:
        self._channel.close()
        self._process.kill()
        self._process.wait()
        self._log.close()
        self._folder.cleanup()

    def status(self) -> Any:
        return self._call("Status", "StatusRequest", "StatusResponse")

    def prepare(self, prompt: str) -> Any:
        """A future; does not wait."""
        method = self._channel.unary_unary(
            f"/{SERVICE}/Prepare",
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=message("PrepareResponse").FromString,
        )
        return method.future(message("PrepareRequest")(model=self.model, prompt=prompt))

    def draw(self, order: Order, on_step: Callable[[int], None] = lambda _step: None) -> Timing:
        request = self._request(order)  # noise aside, as a node has it ready
        started = time.perf_counter()
        steps: list[float] = []
        done = None
        try:
            for event in self._generate(request):
                if event.HasField("step"):
                    steps.append(event.step.step_ms)
                    on_step(event.step.step)
                elif event.HasField("done"):
                    done = event.done
        except grpc.RpcError as error:
            raise _refused(error) from None
        wall_ms = (time.perf_counter() - started) * 1000
        assert done is not None
        return Timing(wall_ms, done.encode_ms, done.denoise_ms, done.decode_ms, done.prompt_tokens, tuple(steps))

    def cancel_ms(self, order: Order, after_step: int) -> float:
        """From the cancel of a running request until the engine says that it is idle."""
        call = self._generate(self._request(order))
        try:
            for event in call:
                if event.HasField("step") and event.step.step >= after_step:
                    break
        except grpc.RpcError as error:
            raise _refused(error) from None
        started = time.perf_counter()
        call.cancel()
        while self.status().state == EngineState.BUSY:
            time.sleep(_POLL_S)
        return (time.perf_counter() - started) * 1000

    def _request(self, order: Order) -> Any:
        side = order.side // PIXELS_PER_LATENT
        noise = torch.randn((1, LATENT_CHANNELS, side, side), generator=torch.Generator("cpu").manual_seed(order.seed))
        return message("EngineGenerateRequest")(
            request_id="bench",
            model=self.model,
            prompt=order.prompt,
            width=order.side,
            height=order.side,
            steps=order.steps,
            items=[{"seed": order.seed, "latents": noise.numpy().tobytes()}],
        )

    def _generate(self, request: Any) -> Any:
        method = self._channel.unary_stream(
            f"/{SERVICE}/Generate",
            request_serializer=lambda sent: sent.SerializeToString(),
            response_deserializer=message("EngineGenerateEvent").FromString,
        )
        return method(request)

    def _call(self, name: str, request: str, response: str, **values: object) -> Any:
        method = self._channel.unary_unary(
            f"/{SERVICE}/{name}",
            request_serializer=lambda sent: sent.SerializeToString(),
            response_deserializer=message(response).FromString,
        )
        try:
            return method(message(request)(**values))
        except grpc.RpcError as error:
            raise _refused(error) from None

    def _await_socket(self, socket: str) -> None:
        give_up = time.monotonic() + _LISTEN_TIMEOUT_S
        while not os.path.exists(socket):
            if self._process.poll() is not None or time.monotonic() > give_up:
                raise Refused(f"the engine did not come up: {self._last_lines()}")
            time.sleep(0.01)

    def _last_lines(self) -> str:
        self._log.seek(0)
        return self._log.read().decode("utf-8", "replace")[-500:]


def _refused(error: Any) -> Refused:
    return Refused(json.dumps(error.details(), ensure_ascii=False)[1:-1])
