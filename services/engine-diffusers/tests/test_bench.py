"""What measures on a GPU machine runs here at tiny size, and says clearly what it lacks at full size."""

import json
from pathlib import Path

import pytest
from bench.figures import step_flops
from bench.random_model import FULL, TINY, parameter_counts
from bench.random_model import main as build_main
from bench.run import main as bench_main


def test_full_shapes_are_those_of_z_image_turbo() -> None:
    counts = parameter_counts(FULL)
    assert counts["transformer"] == pytest.approx(6.1549e9, rel=1e-4)
    assert counts["text_encoder"] == pytest.approx(7.49 * 2**30 / 2, rel=2e-3)
    assert counts["vae"] == pytest.approx(83.8e6, rel=1e-2)


@pytest.mark.parametrize(("side", "caption_tokens", "tflop"), [(512, 96, 13.30), (1024, 90, 56.09), (1024, 512, 62.5), (2048, 96, 320)])
def test_arithmetic_of_a_step(side: int, caption_tokens: int, tflop: float) -> None:
    assert step_flops(FULL.transformer, side, side, caption_tokens) / 1e12 == pytest.approx(tflop, rel=2e-3)


def test_the_bench_runs_on_the_cpu(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    bench_main(["--tiny", "--variants", "base", "--sizes", "64,128", "--repeat", "1", "--json", str(file)])
    figures = json.loads(file.read_text())
    base = figures["variants"]["base"]
    assert (figures["model"], figures["steps"], list(base["sizes"])) == (TINY.name, 8, ["64", "128"])
    assert figures["ceilingTflops"] > 0
    for size in base["sizes"].values():
        assert 0 < size["stepMs"] < size["imageMs"]
        assert size["ceilingShare"] > 0  # of a busy CPU it says nothing
        assert size["peakBytes"] > 2**20
    assert base["cancelMs"]["most"] > 0
    assert 0 < base["gapPreparedMs"] and 0 < base["gapMs"]


def test_a_variant_that_the_engine_refuses_is_told_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import bench.run

    def refuse(*_: object) -> None:
        raise bench.run.Refused("attention _flash_3: it is not installed")

    monkeypatch.setattr(bench.run, "BenchEngine", refuse)
    file = tmp_path / "figures.json"
    bench_main(["--tiny", "--variants", "flash-3", "--json", str(file)])
    assert json.loads(file.read_text())["variants"] == {"flash-3": {"refused": "attention _flash_3: it is not installed"}}


@pytest.mark.parametrize(
    ("program", "arguments", "said"),
    [
        (build_main, ["{tmp}"], "--tiny"),
        (bench_main, ["--model", "{tmp}"], "--tiny"),
        (bench_main, ["--variants", "nonsense"], ""),
    ],
)
def test_without_a_gpu_full_size_is_refused(tmp_path: Path, program: object, arguments: list[str], said: str) -> None:
    with pytest.raises(SystemExit) as caught:
        program([argument.format(tmp=tmp_path) for argument in arguments])  # type: ignore[operator]
    assert caught.value.code not in (0, None)
    assert said in str(caught.value.code)
