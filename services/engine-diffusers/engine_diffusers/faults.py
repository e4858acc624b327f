"""What does an exception of torch mean: too little memory, a lost GPU context, or a fault of the engine?"""

import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from .errors import Code, StatusError, clip
from .log import Log

T = TypeVar("T")

# After one of these every further call in this process fails, or worse, gives wrong numbers.
_CONTEXT_FAULT = re.compile(
    r"illegal (?:memory access|instruction|address)|launch (?:failure|failed)|device-side assert|uncorrectable ECC|"
    r"launch timed out|misaligned address|invalid program counter|operation not supported on (?:global|shared)|"
    r"hardware (?:stack )?error|NVLink error|CUDA error: unknown error|CUBLAS_STATUS_(?:EXECUTION_FAILED|INTERNAL_ERROR)|"
    r"CUDNN_STATUS_EXECUTION_FAILED|GPU is lost|device (?:is )?lost|driver shutting down|Xid",
    re.IGNORECASE,
)
_CPU_OUT_OF_MEMORY = re.compile(r"DefaultCPUAllocator: can't allocate memory|not enough memory")
_CUDA_OUT_OF_MEMORY = re.compile(r"CUDA error: out of memory|CUDA out of memory|CUBLAS_STATUS_ALLOC_FAILED")
_SIZE = r"([\d.]+) (bytes|KiB|MiB|GiB)"
_UNITS = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def is_out_of_memory(error: BaseException) -> bool:
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return True
    if isinstance(error, MemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and bool(_CPU_OUT_OF_MEMORY.search(text) or _CUDA_OUT_OF_MEMORY.search(text))


def is_context_fault(error: BaseException) -> bool:
    """Of torch alone: a sentence of a file's name must not end the process."""
    return isinstance(error, RuntimeError) and not is_out_of_memory(error) and bool(_CONTEXT_FAULT.search(str(error)))


def out_of_memory(error: BaseException) -> StatusError:
    """RESOURCE_EXHAUSTED/OUT_OF_MEMORY with what was wanted and what was free, as far as torch says."""
    text = str(error)
    metadata = {}
    for name, pattern in (("needed_bytes", f"Tried to allocate {_SIZE}"), ("free_bytes", f"of which {_SIZE} is free")):
        found = re.search(pattern, text)
        if found:
            metadata[name] = str(int(float(found[1]) * _UNITS[found[2]]))
    figures = ", ".join(f"{name} {value}" for name, value in metadata.items())
    return StatusError(
        Code.RESOURCE_EXHAUSTED,
        "OUT_OF_MEMORY",
        f"the memory did not suffice, also after all caches were freed{f' ({figures})' if figures else ''}",
        metadata=metadata,
    )


class Attempts:
    """Once more after an out-of-memory, when `relieve` has made room:

    while attempts.more:
        with attempts.one():
            …
    """

    def __init__(self, relieve: Callable[[], None]) -> None:
        self._relieve = relieve
        self._ended = self._short = False
        self.failed = False
        """The first attempt did."""

    @property
    def more(self) -> bool:
        # Out here the first exception is gone, and with it its frames, which hold tensors.
        if self._short:
            self._short = False
            self._relieve()
        return not self._ended

    @contextmanager
    def one(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if self.failed:
                raise out_of_memory(error) from None
            self.failed = self._short = True
        else:
            self._ended = True


def with_retry(action: Callable[[], T], relieve: Callable[[], None]) -> T:
    """The same for what is one call."""
    attempts = Attempts(relieve)
    while attempts.more:
        with attempts.one():
            result = action()
    return result


def translate(error: BaseException, log: Log) -> Exception:
    """What the caller is told. What was not foreseen goes to the log with its traceback."""
    if isinstance(error, StatusError):
        # Frames hold tensors, also those of the exception that it was made of.
        error.__cause__ = error.__context__ = None
        return error.with_traceback(None)
    if is_out_of_memory(error):
        return out_of_memory(error)
    log("error", "unforeseen", error=str(error), traceback="".join(traceback.format_exception(error))[-6000:])
    return StatusError(Code.INTERNAL, "INTERNAL", clip(f"{type(error).__name__}: {error}", 500))
