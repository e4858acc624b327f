"""How close to the card's limit does the engine draw, and what does each option bring? Real engine processes, driven as a node drives
them. On a GPU machine:

    npm run model:random -- /models/random
    npm run bench:gpu -- --model /models/random --json gpu.json
    npm run bench:gpu -- --tiny                            # on the CPU, small shapes: does it run?

Figures: docs/benchmarks.md, "gpu"."""

import argparse
import json
import platform
import statistics
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import diffusers
import torch

from bench.engine import BenchEngine, Order, Refused
from bench.figures import matmul_ceiling, step_flops
from bench.random_model import TINY, build

STEPS = 8
# By name: settings of the engine. `base` is what an operator gets who sets nothing.
VARIANTS: dict[str, dict[str, str]] = {
    "base": {},
    "compile": {"DMESH_ENGINE_COMPILE": "{side}x{side}"},
    "fp8": {"DMESH_ENGINE_WEIGHTS": "fp8"},
    "fp8-compile": {"DMESH_ENGINE_WEIGHTS": "fp8", "DMESH_ENGINE_COMPILE": "{side}x{side}"},
    "text-fp8": {"DMESH_ENGINE_TEXT_ENCODER": "fp8"},
    "cudnn": {"DMESH_ENGINE_ATTENTION": "_native_cudnn"},
    "flash-3": {"DMESH_ENGINE_ATTENTION": "_flash_3"},
    "cudnn-compile": {"DMESH_ENGINE_ATTENTION": "_native_cudnn", "DMESH_ENGINE_COMPILE": "{side}x{side}"},
}
# 1024², 8 steps on an H200: three quarters of what its matrix units could do at best.
TARGETS = {"imageMs": 780, "gapMs": 10}
_WARM_UP_STEPS = 2
_CANCEL_AFTER_STEP = 2
_CANCEL_STEPS = 50


class Bench:
    def __init__(self, model_dir: Path, options: argparse.Namespace) -> None:
        self._model_dir = model_dir
        self._options = options
        self._transformer = json.loads((model_dir / "transformer/config.json").read_text())
        self._device = torch.device("cpu" if options.tiny else "cuda")
        self._prompt_count = 0

    def run(self) -> dict[str, Any]:
        options = self._options
        on_cpu = self._device.type == "cpu"
        # In the precision of the engine; a side that fills every multiprocessor.
        ceiling = matmul_ceiling(self._device, torch.float32 if on_cpu else torch.bfloat16, 512 if on_cpu else 8192)
        if not on_cpu:
            torch.cuda.empty_cache()
        print(f"matrix products at best: {ceiling / 1e12:.2f} TFLOP/s")
        variants = {}
        for name in options.variants:
            print(f"\n{name}")
            try:
                variants[name] = self._variant(name, ceiling)
            except Refused as refused:
                variants[name] = {"refused": str(refused)}
                print(f"  refused: {refused}")
        return {
            "card": torch.cuda.get_device_name() if not on_cpu else f"CPU, {platform.machine()}",
            "torch": torch.__version__,
            "diffusers": diffusers.__version__,
            "model": json.loads((self._model_dir / "mesh.json").read_text())["name"],
            "steps": STEPS,
            "side": options.side,
            "ceilingTflops": _rounded(ceiling / 1e12),
            "targets": TARGETS,
            "variants": variants,
        }

    def _variant(self, name: str, ceiling: float) -> dict[str, Any]:
        options = self._options
        env = {key: value.format(side=options.side) for key, value in VARIANTS[name].items()}
        engine = BenchEngine(self._model_dir, {**env, **({"CUDA_VISIBLE_DEVICES": ""} if options.tiny else {})})
        try:
            print(f"  loaded in {engine.load_ms / 1000:.1f} s")
            # Sizes go up, so the peak so far is the peak of the largest. What an option brings shows at the usual size.
            sides = sorted(options.sizes) if name == "base" else [options.side]
            sizes = {str(side): self._size(engine, side, ceiling) for side in sides}
            long = Order(self._next_prompt(), options.side, _CANCEL_STEPS)
            cancels = [engine.cancel_ms(long, _CANCEL_AFTER_STEP) for _ in range(options.repeat)]
            result = {
                "settings": env,
                "loadMs": _rounded(engine.load_ms),
                "sizes": sizes,
                "cancelMs": {"median": _median(cancels), "most": _rounded(max(cancels))},
                "gapMs": self._gap(engine, prepares=False),
                "gapPreparedMs": self._gap(engine, prepares=True),
            }
            print(f"  cancelled after {result['cancelMs']['median']} ms, at most {result['cancelMs']['most']}")
            print(f"  lost between two pictures: {result['gapMs']} ms, prompts read ahead: {result['gapPreparedMs']}")
            return result
        finally:
            engine.close()

    def _size(self, engine: BenchEngine, side: int, ceiling: float) -> dict[str, Any]:
        try:
            engine.draw(Order(self._next_prompt(), side, _WARM_UP_STEPS))
            drawn = [engine.draw(Order(self._next_prompt(), side, STEPS, seed)) for seed in range(self._options.repeat)]
        except Refused as refused:
            print(f"  {side}²: {refused}")
            return {"failed": str(refused)}
        step_ms = _median(step for timing in drawn for step in timing.step_ms)
        flops = step_flops(self._transformer, side, side, drawn[-1].prompt_tokens)
        status = engine.status()
        figures = {
            "stepMs": step_ms,
            "imageMs": _median(timing.wall_ms for timing in drawn),
            "encodeMs": _median(timing.encode_ms for timing in drawn),
            "decodeMs": _median(timing.decode_ms for timing in drawn),
            "stepTflop": _rounded(flops / 1e12),
            "ceilingShare": _rounded(flops / (step_ms / 1000) / ceiling),
            "peakBytes": status.memory_peak_bytes,
        }
        print(
            f"  {side}²: step {figures['stepMs']} ms, {figures['ceilingShare'] * 100:.0f} % of the ceiling, "
            f"picture {figures['imageMs']} ms (text {figures['encodeMs']}, decoding {figures['decodeMs']}), "
            f"peak {status.memory_peak_bytes / 2**30:.1f} GiB"
        )
        return figures

    def _gap(self, engine: BenchEngine, *, prepares: bool) -> float:
        """What of each picture's time was neither a step nor decoding, one request right after the other, no prompt twice."""
        prompts = [self._next_prompt() for _ in range(self._options.repeat + 1)]
        ahead: list[Any] = []
        lost_ms = []
        for prompt, following in zip(prompts, [*prompts[1:], ""], strict=True):
            if ahead:
                ahead.pop().result()

            def on_step(step: int, following: str = following) -> None:
                if prepares and following and step == 1:
                    ahead.append(engine.prepare(following))

            timing = engine.draw(Order(prompt, self._options.side, STEPS), on_step)
            lost_ms.append(timing.wall_ms - timing.denoise_ms - timing.decode_ms)
        return _median(lost_ms[1:])  # the first had nothing before it

    def _next_prompt(self) -> str:
        """Never the same, always of the same length."""
        self._prompt_count += 1
        return f"A lighthouse on a cliff above a stormy sea at dusk, waves breaking over black rocks, number {self._prompt_count:04}"


def _median(values: Iterable[float]) -> float:
    return _rounded(statistics.median(values))


def _rounded(value: float) -> float:
    """Three significant digits are what such measurements hold."""
    return float(f"{value:.3g}")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="bench:gpu", description="Measures engine-diffusers on this machine's GPU.")
    parser.add_argument("--model", type=Path, help="folder: of npm run model:random, or real weights")
    parser.add_argument("--tiny", action="store_true", help="small random shapes on the CPU: does it run?")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--sizes", help="sides in pixels, such as 512,1024,1536,2048")
    parser.add_argument("--variants", help=f"of {', '.join(VARIANTS)}")
    parser.add_argument("--repeat", type=int, help="pictures for each figure")
    options = parser.parse_args(arguments)
    options.side = TINY.side if options.tiny else 1024
    options.sizes = [int(side) for side in (options.sizes or ("64,128" if options.tiny else "512,1024,1536,2048")).split(",")]
    options.variants = (options.variants or ("base,fp8" if options.tiny else ",".join(VARIANTS))).split(",")
    options.repeat = options.repeat or (2 if options.tiny else 5)
    unknown = [name for name in options.variants if name not in VARIANTS]
    if unknown:
        parser.error(f"--variants: expected some of {', '.join(VARIANTS)}, got {', '.join(unknown)}")
    if options.tiny:
        with tempfile.TemporaryDirectory(prefix="dmesh-random-") as folder:
            build(Path(folder), TINY, torch.device("cpu"))
            figures = Bench(Path(folder), options).run()
    else:
        if not torch.cuda.is_available():
            sys.exit("bench:gpu: expected an NVIDIA GPU that torch finds, found none; on the CPU, with small shapes: --tiny")
        if options.model is None or not (options.model / "mesh.json").is_file():
            sys.exit("bench:gpu: expected --model with a model folder; npm run model:random builds one")
        figures = Bench(options.model, options).run()
    print(f"\n{figures['card']}, torch {figures['torch']}, diffusers {figures['diffusers']}")
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
