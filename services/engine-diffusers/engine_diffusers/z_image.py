"""How a model of the Z-Image family draws, top to bottom: the prompt becomes caption features, noise becomes latents in steps, latents
become pixels. Numerically diffusers' ZImagePipeline; the loop is our own, so that a cancel and a pause take hold before every forward
pass, and nothing but the frame of `draw` knows of a request."""

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from diffusers.pipelines.z_image.pipeline_z_image import calculate_shift, get_default_z_image_sigmas
from torch import Tensor

from .adapters import Adapters
from .config import Options
from .device import Placement, determinism_class, free_cached, synchronize
from .drawing import Checkpoint, Drawn, Event, Picture, Step, now_ms
from .faults import Attempts, with_retry
from .folder import ModelFolder
from .order import LATENT_CHANNELS, PIXELS_PER_LATENT, Drawing
from .pixels import expect_finite, to_rgb
from .prompts import Caption, CaptionReader

# Beyond this size a single picture keeps a large GPU as busy as several would.
_BATCHED_PIXELS = 512 * 512


class ZImageModel:
    def __init__(self, folder: ModelFolder, parts: dict[str, Any], placement: Placement, options: Options) -> None:
        self.folder = folder
        self.determinism_class = determinism_class(folder, placement, options)
        self._transformer = parts["transformer"]
        self._vae = parts["vae"]
        self._scheduler = parts["scheduler"]
        self._placement = placement
        self._options = options
        self._captions = CaptionReader(
            parts["tokenizer"],
            parts["text_encoder"],
            max_tokens=folder.info.limits.max_prompt_tokens,
            device=placement.device,
            dtype=placement.dtype,
            capacity=options.prompt_cache_count,
        )
        self._adapters = Adapters(self._transformer, folder.lora_path, options.lora_cache_count)

    def draw(self, drawing: Drawing) -> Iterator[Event]:
        yield Checkpoint(may_pause=False)
        started_at_ms = now_ms()
        read = with_retry(lambda: self._read(drawing), self._make_room)
        caption, captions = read[0], [each.features for each in read]
        encode_ms = now_ms() - started_at_ms
        denoise_ms = decode_ms = 0.0
        timesteps, sigmas = self._schedule(drawing)
        together = self._options.batch_count if drawing.width * drawing.height <= _BATCHED_PIXELS else 1
        for first in range(0, len(drawing.noises), together):
            batch = self._noise(drawing.noises[first : first + together])
            for i in range(drawing.steps):
                yield Checkpoint(may_pause=True)
                started_at_ms = now_ms()
                attempts = Attempts(self._make_room)
                while attempts.more:
                    with attempts.one():
                        parts = batch.split(1 if attempts.failed else together)
                        after = [self._step(part, timesteps[i], sigmas[i + 1] - sigmas[i], captions, drawing) for part in parts]
                batch = torch.cat(after)
                step_ms = now_ms() - started_at_ms
                denoise_ms += step_ms
                yield Step(i + 1, drawing.steps, first, step_ms)
            for image_index, latents in enumerate(batch.split(1), first):
                if image_index > first:  # its steps are done; told in their order all the same
                    yield from (Step(i + 1, drawing.steps, image_index, 0.0) for i in range(drawing.steps))
                yield Checkpoint(may_pause=False)
                started_at_ms = now_ms()
                expect_finite(latents, "the latents hold")
                tiled = drawing.width * drawing.height > self._options.tile_past_pixels
                attempts = Attempts(self._make_room)
                while attempts.more:
                    with attempts.one():
                        rgb = self._decode(latents, tiled or attempts.failed)
                decode_ms += now_ms() - started_at_ms
                yield Picture(image_index, drawing.width, drawing.height, rgb, latents)
        forward_count = len(drawing.noises) * drawing.steps * len(captions)
        yield Drawn(encode_ms, denoise_ms, decode_ms, caption.token_count, forward_count)

    def prepare(self, prompt: str, negative_prompt: str) -> bool:
        for text in (prompt, negative_prompt):
            if text:
                self._captions.read_ahead(text)
        return True

    def release(self) -> None:
        self._adapters.forget()
        self._captions.forget()
        del self._transformer, self._vae, self._captions, self._adapters
        free_cached(self._placement.device)

    def warm_up(self, sizes: list[tuple[int, int]]) -> None:
        """Draws one picture of each size, so that what is compiled is compiled before the first request."""
        for width, height in sizes:
            noise = np.random.default_rng(0).standard_normal((1, LATENT_CHANNELS, height // PIXELS_PER_LATENT, width // PIXELS_PER_LATENT))
            drawing = Drawing("a red circle", "", width, height, 2, 0.0, (), (noise,))
            for _ in self.draw(drawing):
                pass

    def _schedule(self, drawing: Drawing) -> tuple[Tensor, Tensor]:
        """Timesteps and noise levels; one more level than steps. A scheduler of its own for each request."""
        scheduler = type(self._scheduler).from_config(self._scheduler.config)
        config = scheduler.config
        mu = calculate_shift(
            (drawing.width // 16) * (drawing.height // 16),
            config.get("base_image_seq_len", 256),
            config.get("max_image_seq_len", 4096),
            config.get("base_shift", 0.5),
            config.get("max_shift", 1.15),
        )
        sigmas = get_default_z_image_sigmas(drawing.steps)
        scheduler.set_timesteps(device=self._placement.device, sigmas=sigmas, mu=mu)
        return scheduler.timesteps, scheduler.sigmas.to(self._placement.device)

    def _noise(self, noises: tuple[np.ndarray, ...]) -> Tensor:
        return torch.from_numpy(np.concatenate(noises).astype(np.float32)).to(self._placement.device)

    def _read(self, drawing: Drawing) -> list[Caption]:
        self._adapters.use(drawing.loras)  # what cannot be applied fails before anything is drawn
        texts = [drawing.prompt, drawing.negative_prompt] if drawing.guidance_scale > 0 else [drawing.prompt]
        return [self._captions.read(text) for text in texts]

    @torch.inference_mode()
    def _step(self, latents: Tensor, timestep: Tensor, sigma_delta: Tensor, captions: list[Tensor], drawing: Drawing) -> Tensor:
        """One step of Euler's method for pictures of one size and one prompt. Latents stay in float32."""
        self._adapters.use(drawing.loras)  # a request that was drawn while this one was paused may have used others
        count = len(latents)
        inputs = list(latents.to(self._placement.dtype).repeat(len(captions), 1, 1, 1).unsqueeze(2).unbind(0))
        time = ((1000 - timestep.expand(1)) / 1000).repeat(len(inputs))
        of_each = [caption for caption in captions for _ in range(count)]
        with self._eager_with_adapters():
            outputs = self._transformer(inputs, time, of_each, return_dict=False)[0]
        velocity = torch.stack(list(outputs[:count])).float()
        if len(captions) > 1:
            velocity = velocity + drawing.guidance_scale * (velocity - torch.stack(list(outputs[count:])).float())
        # The model predicts from noise to picture, the schedule runs the other way.
        latents = latents + sigma_delta * -velocity.squeeze(2)
        synchronize(self._placement.device)
        return latents

    def _eager_with_adapters(self) -> Any:
        """Compiled blocks would not see the hooks of a LoRA. One of strength 0 has none, and draws what the bare model draws."""
        if self._options.compile == "off" or not self._adapters.active:
            return nullcontext()
        return torch.compiler.set_stance("force_eager")

    @torch.inference_mode()
    def _decode(self, latents: Tensor, tiled: bool) -> bytes:
        config = self._vae.config
        scaled = latents.to(self._vae.dtype) / config.scaling_factor + config.shift_factor
        if tiled:
            self._vae.enable_tiling()
        try:
            return to_rgb(self._vae.decode(scaled, return_dict=False)[0])
        finally:
            self._vae.disable_tiling()  # also when it failed: the next picture is another request's

    def _make_room(self) -> None:
        self._adapters.forget()
        self._captions.forget()
        free_cached(self._placement.device)
