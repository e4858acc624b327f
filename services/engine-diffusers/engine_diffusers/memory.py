"""How much memory is there and in use? Read without torch, so that Status is answered before torch is imported and while the GPU is
at work: the GPU's by NVML, else the process's own."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class MemoryReport:
    used_bytes: int
    total_bytes: int
    device: str


def memory_reader(device: str, env: Mapping[str, str] = os.environ) -> Callable[[], MemoryReport]:
    """`device`: auto, cuda or cpu. Which GPU it is, CUDA_VISIBLE_DEVICES says; empty: none."""
    visible = env.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    reader = None if device == "cpu" or visible == "" else _nvml_reader(visible)
    return reader or _process_memory


def _nvml_reader(visible: str) -> Callable[[], MemoryReport] | None:
    """None without a driver or such a GPU."""
    import pynvml

    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(int(visible)) if visible.isdigit() else pynvml.nvmlDeviceGetHandleByUUID(visible)
        name = pynvml.nvmlDeviceGetName(handle)
        pynvml.nvmlDeviceGetMemoryInfo(handle)
    except pynvml.NVMLError:
        return None

    def read() -> MemoryReport:
        try:
            memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        except pynvml.NVMLError:
            return MemoryReport(0, 0, name)  # a driver in trouble is for the next step to tell
        return MemoryReport(int(memory.used), int(memory.total), name)

    return read


def _process_memory() -> MemoryReport:
    page_bytes = os.sysconf("SC_PAGE_SIZE")
    return MemoryReport(rss_bytes(), os.sysconf("SC_PHYS_PAGES") * page_bytes, "cpu")


def rss_bytes() -> int:
    """Resident memory of this process; 0 where there is no /proc."""
    try:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
