"""What Status tells of memory and GPU, with a driver of our own: NVML as it answers, as it fails, and absent."""

from types import SimpleNamespace
from typing import Any

import pytest

from engine_diffusers.memory import memory_reader, rss_bytes

UUID = "GPU-6a2b5d1c"
GIB = 2**30


class FakeNvml:
    """As much of pynvml as is used; `broken` names what this driver refuses."""

    NVML_TEMPERATURE_GPU = 0

    class NVMLError(Exception):
        pass

    def __init__(self, *broken: str) -> None:
        self._broken = broken
        self.asked_for: list[object] = []

    def __getattr__(self, name: str) -> Any:
        answers = {
            "nvmlInit": lambda: None,
            "nvmlDeviceGetHandleByIndex": lambda index: self.asked_for.append(index),
            "nvmlDeviceGetHandleByUUID": lambda uuid: self.asked_for.append(uuid),
            "nvmlDeviceGetName": lambda _: "NVIDIA H200",
            "nvmlDeviceGetMemoryInfo": lambda _: SimpleNamespace(used=25 * GIB, total=141 * GIB),
            "nvmlDeviceGetUtilizationRates": lambda _: SimpleNamespace(gpu=97),
            "nvmlDeviceGetTemperature": lambda _, kind: 61 if kind == self.NVML_TEMPERATURE_GPU else 0,
        }
        if name not in answers:
            raise AttributeError(name)
        if name in self._broken:
            raise self.NVMLError(f"{name}: Not Supported")
        return answers[name]


def test_of_a_gpu_everything_is_told() -> None:
    nvml = FakeNvml()
    report = memory_reader("auto", {"CUDA_VISIBLE_DEVICES": UUID}, nvml)()
    assert nvml.asked_for == [UUID]
    assert (report.device, report.used_bytes, report.total_bytes) == ("NVIDIA H200", 25 * GIB, 141 * GIB)
    assert (report.utilisation_ratio, report.temperature_celsius) == (0.97, 61)
    assert report.peak_bytes == 0  # torch has not touched it


def test_a_gpu_may_be_named_by_its_index() -> None:
    nvml = FakeNvml()
    memory_reader("cuda", {"CUDA_VISIBLE_DEVICES": "1,2"}, nvml)
    assert nvml.asked_for == [1]


def test_what_a_driver_does_not_tell_is_0() -> None:
    nvml = FakeNvml("nvmlDeviceGetUtilizationRates", "nvmlDeviceGetTemperature")
    report = memory_reader("auto", {"CUDA_VISIBLE_DEVICES": "0"}, nvml)()
    assert (report.used_bytes, report.utilisation_ratio, report.temperature_celsius) == (25 * GIB, 0, 0)


@pytest.mark.parametrize(
    ("device", "env", "nvml"),
    [
        ("cpu", {"CUDA_VISIBLE_DEVICES": UUID}, FakeNvml()),
        ("auto", {"CUDA_VISIBLE_DEVICES": ""}, FakeNvml()),
        ("auto", {}, FakeNvml("nvmlInit")),
        ("auto", {"CUDA_VISIBLE_DEVICES": UUID}, FakeNvml("nvmlDeviceGetHandleByUUID")),
    ],
)
def test_without_a_gpu_it_is_the_process_that_is_told_of(device: str, env: dict[str, str], nvml: Any) -> None:
    report = memory_reader(device, env, nvml)()
    assert report.device == "cpu"
    assert 0 < report.used_bytes < report.total_bytes
    assert 0.9 * rss_bytes() < report.peak_bytes < report.total_bytes
    assert (report.utilisation_ratio, report.temperature_celsius) == (0, 0)
