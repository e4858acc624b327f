"""How a model of any other family draws: with the pipeline that diffusers has for it, step by step through its callback. So the mesh
serves Stable-Diffusion- and FLUX-shaped folders too. A pipeline keeps its state in itself, so each request gets a copy of the shell; the
weights are shared."""

import copy
import hashlib
import inspect
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .adapters import Adapters
from .config import Options
from .device import Placement, determinism_class, free_cached
from .drawing import Checkpoint, Drawn, Event, Picture, Step, now_ms
from .errors import model_unusable, prompt_too_long
from .faults import Attempts
from .folder import ModelFolder
from .order import LATENT_CHANNELS, PIXELS_PER_LATENT, Drawing
from .pixels import expect_finite, to_rgb
from .suspended import suspended

# What the loop hands to a pipeline; one that does not take these cannot be driven by it.
_NEEDED = ("prompt", "width", "height", "num_inference_steps", "latents", "callback_on_step_end", "output_type")


@dataclass(frozen=True)
class _Tick:
    """A step of the pipeline's scheduler is done."""

    index: int
    count: int
    latents: Tensor
    took_ms: float


class PipelineModel:
    def __init__(self, folder: ModelFolder, pipe: Any, placement: Placement, options: Options) -> None:
        self.folder = folder
        self.determinism_class = determinism_class(folder, placement, options)
        self._pipe = pipe
        self._placement = placement
        self._options = options
        self._accepts = frozenset(inspect.signature(pipe.__call__).parameters)
        self._channels, self._backbone = _expect_shape(folder, pipe, self._accepts)
        self._adapters = Adapters(self._backbone, folder.lora_path, options.lora_cache_count)

    def draw(self, drawing: Drawing) -> Iterator[Event]:
        yield Checkpoint(may_pause=False)
        self._adapters.use(drawing.loras)
        prompt_tokens = self._count_tokens(drawing.prompt)
        denoise_ms = rest_ms = 0.0
        forward_count = 0
        for image_index, noise in enumerate(drawing.noises):
            tiled = drawing.width * drawing.height > self._options.tile_past_pixels
            attempts = Attempts(self._make_room)
            done = 0
            while attempts.more:
                yield Checkpoint(may_pause=True)
                self._adapters.use(drawing.loras)
                self._tile(tiled or attempts.failed)
                started_at_ms = now_ms()
                ticks = suspended(lambda tell, noise=noise: self._run(drawing, noise, tell))
                with attempts.one(), closing(ticks):
                    while True:
                        try:
                            tick = next(ticks)
                        except StopIteration as ended:
                            image = ended.value
                            break
                        forward_count += 1
                        denoise_ms += tick.took_ms
                        expect_finite(tick.latents, "the latents hold")
                        # Some schedulers take more steps than they were told; the caller is told of as many as were ordered, and
                        # of none twice when all begins anew.
                        if (tick.index + 1) * drawing.steps // tick.count > done:
                            done += 1
                            yield Step(done, drawing.steps, image_index, tick.took_ms)
                        yield Checkpoint(may_pause=done < drawing.steps)
                        self._adapters.use(drawing.loras)
                        self._tile(tiled or attempts.failed)
                        started_at_ms = now_ms()
                    rgb = to_rgb(image * 2 - 1)
                rest_ms += now_ms() - started_at_ms
            yield Picture(image_index, drawing.width, drawing.height, rgb, None)
        yield Drawn(0.0, denoise_ms, rest_ms, prompt_tokens, forward_count)

    def prepare(self, prompt: str, negative_prompt: str) -> bool:
        """Pipelines read the text themselves."""
        return False

    def release(self) -> None:
        self._adapters.forget()
        del self._pipe, self._backbone, self._adapters
        free_cached(self._placement.device)

    def _run(self, drawing: Drawing, noise: np.ndarray, tell: Any) -> Tensor:
        """On a thread of its own, which `tell` stops after each step. The picture, [1, 3, height, width] in 0..1."""
        pipe = copy.copy(self._pipe)
        pipe.scheduler = copy.deepcopy(self._pipe.scheduler)
        started_at_ms = now_ms()

        def on_step_end(running: Any, index: int, _timestep: object, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
            nonlocal started_at_ms
            took_ms = now_ms() - started_at_ms
            tell(_Tick(index, max(1, int(running.num_timesteps)), tensors["latents"], took_ms))
            started_at_ms = now_ms()
            return tensors

        optional = {
            "guidance_scale": drawing.guidance_scale,
            "negative_prompt": drawing.negative_prompt or None,
            # For schedulers that add noise of their own: it follows from the noise they start from.
            "generator": torch.Generator("cpu").manual_seed(_seed_of(noise)),
        }
        result = pipe(
            prompt=drawing.prompt,
            width=drawing.width,
            height=drawing.height,
            num_inference_steps=drawing.steps,
            latents=self._latents(noise),
            callback_on_step_end=on_step_end,
            output_type="pt",
            **{name: value for name, value in optional.items() if name in self._accepts},
        )
        return result.images

    def _tile(self, tiled: bool) -> None:
        """The decoder belongs to all requests: set again whenever one goes on."""
        for part in ("enable_tiling", "enable_slicing") if tiled else ("disable_tiling", "disable_slicing"):
            getattr(self._pipe.vae, part, lambda: None)()

    def _make_room(self) -> None:
        self._adapters.forget()
        free_cached(self._placement.device)

    def _latents(self, noise: np.ndarray) -> Tensor:
        """As many channels as this family has, of the node's 16; packed where the pipeline wants tokens."""
        latents = torch.from_numpy(noise[:, : self._channels].astype(np.float32)).to(self._placement.device, self._placement.dtype)
        if not hasattr(self._pipe, "_pack_latents"):
            return latents
        return self._pipe._pack_latents(latents, 1, self._channels, latents.shape[2], latents.shape[3])

    def _count_tokens(self, prompt: str) -> int:
        """By the tokenizer that takes the longest prompts, since others only add a summary. Never cut."""
        tokenizers = [part for name, part in self._pipe.components.items() if name.startswith("tokenizer") and part is not None]
        if not tokenizers:
            return 0
        longest = max(tokenizers, key=lambda tokenizer: tokenizer.model_max_length)
        count = len(longest(prompt).input_ids)
        limit = min(self.folder.info.limits.max_prompt_tokens, longest.model_max_length)
        if count > limit:
            raise prompt_too_long(count, limit)
        return count


def _expect_shape(folder: ModelFolder, pipe: Any, accepts: frozenset[str]) -> tuple[int, Any]:
    """Latent channels and the network that LoRAs are for."""
    faults = [f"its pipeline does not take {name}" for name in _NEEDED if name not in accepts]
    vae = getattr(pipe, "vae", None)
    backbone = getattr(pipe, "transformer", None) or getattr(pipe, "unet", None)
    if vae is None or backbone is None:
        faults.append("its pipeline has no vae, or neither transformer nor unet")
    channels = int(getattr(vae.config, "latent_channels", 0)) if vae is not None else 0
    if vae is not None and not 1 <= channels <= LATENT_CHANNELS:
        faults.append(f"vae: expected 1 to {LATENT_CHANNELS} latent channels, got {channels}")
    pixels = 2 ** (len(getattr(vae.config, "block_out_channels", ())) - 1) if vae is not None else 0
    if vae is not None and pixels != PIXELS_PER_LATENT:
        faults.append(f"vae: expected {PIXELS_PER_LATENT} pixels for each latent, got {pixels}")
    if faults:
        raise model_unusable(f"model {folder.info.name}: {'; '.join(faults)}")
    return channels, backbone


def _seed_of(noise: np.ndarray) -> int:
    return int.from_bytes(hashlib.sha256(noise.tobytes()).digest()[:8], "little") >> 1
