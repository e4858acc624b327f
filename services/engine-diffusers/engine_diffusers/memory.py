"""How much memory is there and in use, and how is the GPU? Read without torch, so that Status is answered before torch is imported and
while the GPU is at work: the GPU's by NVML, else the process's own. Only the peak is torch's word, when torch is there."""

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class MemoryReport:
    used_bytes: int
    total_bytes: int
    device: str
    peak_bytes: int = 0
    """The most that this process has held; 0 where it is not known."""
    utilisation_ratio: float = 0.0
    temperature_celsius: float = 0.0


def memory_reader(device: str, env: Mapping[str, str] = os.environ, nvml: Any = None) -> Callable[[], MemoryReport]:
    """`device`: auto, cuda or cpu. Which GPU it is, CUDA_VISIBLE_DEVICES says; empty: none. `nvml`: pynvml, unless a test has its own."""
    visible = env.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    reader = None if device == "cpu" or visible == "" else _nvml_reader(visible, nvml or _pynvml())
    return reader or _process_memory


def _pynvml() -> Any:
    """None where it is not installed: a GPU is drawn on all the same."""
    try:
        import pynvml
    except ImportError:
        return None
    return pynvml


def _nvml_reader(visible: str, nvml: Any) -> Callable[[], MemoryReport] | None:
    """None without a driver or such a GPU."""
    if nvml is None:
        return None
    try:
        nvml.nvmlInit()
        handle = nvml.nvmlDeviceGetHandleByIndex(int(visible)) if visible.isdigit() else nvml.nvmlDeviceGetHandleByUUID(visible)
        name = nvml.nvmlDeviceGetName(handle)
        nvml.nvmlDeviceGetMemoryInfo(handle)
    except nvml.NVMLError:
        return None

    def known(figure: Callable[[], float]) -> float:
        """0 for what this driver does not tell, or not now: a driver in trouble is for the next step to tell."""
        try:
            return figure()
        except nvml.NVMLError:
            return 0

    def read() -> MemoryReport:
        return MemoryReport(
            used_bytes=int(known(lambda: nvml.nvmlDeviceGetMemoryInfo(handle).used)),
            total_bytes=int(known(lambda: nvml.nvmlDeviceGetMemoryInfo(handle).total)),
            device=name,
            peak_bytes=_torch_peak_bytes(),
            utilisation_ratio=known(lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu) / 100,
            temperature_celsius=known(lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)),
        )

    return read


def _torch_peak_bytes() -> int:
    """Of torch's allocator, since NVML keeps no peak; 0 before torch is imported or has touched the GPU."""
    torch = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)  # absent while it is being imported
    return int(cuda.max_memory_reserved()) if cuda is not None and hasattr(cuda, "is_initialized") and cuda.is_initialized() else 0


def _process_memory() -> MemoryReport:
    page_bytes = os.sysconf("SC_PAGE_SIZE")
    return MemoryReport(rss_bytes(), os.sysconf("SC_PHYS_PAGES") * page_bytes, "cpu", _rss_peak_bytes())


def rss_bytes() -> int:
    """Resident memory of this process; 0 where there is no /proc."""
    try:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _rss_peak_bytes() -> int:
    try:
        with open("/proc/self/status") as status:
            line = next((line for line in status if line.startswith("VmHWM:")), "VmHWM: 0 kB")
    except OSError:
        return 0
    return int(line.split()[1]) * 1024
