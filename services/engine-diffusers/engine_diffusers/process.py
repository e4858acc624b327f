"""The engine as a process: settings, socket, threads, signals. See docs/engines.md, Start and End."""

import argparse
import asyncio
import os
import signal
import stat
import sys
from dataclasses import fields

import grpc

from . import ENGINE_VERSION
from .config import Config, ConfigError, Options, parse_config
from .log import Log, json_log

# By custom: a bad configuration, and a failure.
_EXIT_BAD_CONFIG = 64
_EXIT_FAILURE = 1
# Four pictures of 2048² worth of noise, and room.
_MAX_REQUEST_BYTES = 64 * 1024 * 1024
# What takes longer than this to stop is cut.
_STOP_GRACE_S = 20


def main() -> None:
    argparse.ArgumentParser(
        prog="engine-diffusers",
        description="Draws pictures with PyTorch and diffusers; started by a node. Settings are environment variables named "
        "DMESH_ENGINE_…: see docs/operations.md.",
    ).parse_args()
    try:
        config = parse_config()
    except ConfigError as error:
        print(error, file=sys.stderr)
        raise SystemExit(_EXIT_BAD_CONFIG) from error
    _set_environment(config)
    log = json_log(config.log_level)
    try:
        asyncio.run(_serve(config, log))
    except Exception as error:
        log("error", "failed", error=str(error))
        _exit(_EXIT_FAILURE)
    _exit(0)


def _set_environment(config: Config) -> None:
    """What libraries read when they are imported or first used."""
    os.environ.setdefault("OMP_NUM_THREADS", str(config.thread_count))
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Nothing is ever fetched: a model is a folder.
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # the same bytes each time
    os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")  # less memory lost between sizes
    if config.options.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


async def _serve(config: Config, log: Log) -> None:
    from .compute import ComputeThread
    from .faults import is_context_fault, translate
    from .memory import memory_reader
    from .parent import watch_parent
    from .service import EngineService

    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stopping.set)

    def on_fault(error: BaseException) -> Exception:
        if is_context_fault(error):
            # The context is lost and would fail every request from now on; only a new process gets a new one.
            log("error", "the GPU context is lost, the engine ends", error=str(error))
            _exit(_EXIT_FAILURE)
        return translate(error, log)

    def load_model(model_dir: str) -> "object":
        from .loading import load  # imports torch, on the compute thread

        return load(model_dir, config.options, log)

    def parent_gone() -> None:
        log("warn", "parent process is gone", parent_pid=config.parent_pid)
        _exit(0)

    compute = ComputeThread(loop, on_fault)
    service = EngineService(
        compute=compute,
        reading=ComputeThread(loop, on_fault, "reading"),
        load_model=load_model,
        memory=memory_reader(config.options.device),
        log=log,  # type: ignore[arg-type]
    )
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", _MAX_REQUEST_BYTES),
            ("grpc.max_send_message_length", -1),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_ping_strikes", 0),
        ]
    )
    server.add_generic_rpc_handlers((service.handler(),))
    _remove_stale_socket(config.socket_path)
    server.add_insecure_port(f"unix:{config.socket_path}")
    await server.start()
    watch_parent(config.parent_pid, parent_gone)
    log("info", "ready", grpc=f"unix:{config.socket_path}", version=ENGINE_VERSION)
    options = {field.name: getattr(config.options, field.name) for field in fields(Options)}
    log("debug", "options", **options)
    # torch takes seconds to import; by the time a Load comes it is there.
    imported = compute.run(lambda: _import_torch(config))
    imported.add_done_callback(lambda done: stopping.set() if done.exception() else None)
    await stopping.wait()
    if imported.done() and imported.exception() is not None:
        raise RuntimeError(f"torch or diffusers cannot be imported: {imported.exception()}")
    try:
        async with asyncio.timeout(_STOP_GRACE_S):
            await service.stop()
            await server.stop(_STOP_GRACE_S)
    except TimeoutError:
        log("warn", "the running step did not end in time")


def _import_torch(config: Config) -> None:
    import torch

    torch.set_num_threads(config.thread_count)
    from . import loading

    loading.be_quiet()


def _remove_stale_socket(path: str) -> None:
    """An engine that was killed leaves its socket behind. Anything else at that path stays, and listening fails."""
    try:
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            os.unlink(path)
    except FileNotFoundError:
        return


def _exit(code: int) -> None:
    """At once: the compute thread may be inside a kernel or an import, which nothing can end."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
