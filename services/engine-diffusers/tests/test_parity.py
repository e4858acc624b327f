"""The same numbers as stock diffusers: the same noise in, the same latents and pixels out."""

import numpy as np
import pytest
import torch
from conftest import MODEL_DIR, PROMPT, draw, drawing, noise
from diffusers import ZImagePipeline

from engine_diffusers.drawing import Model
from engine_diffusers.order import LoraUse

LATENT_TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def stock() -> ZImagePipeline:
    pipe = ZImagePipeline.from_pretrained(MODEL_DIR)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.parametrize(
    ("prompt", "width", "height", "steps"),
    [
        (PROMPT, 128, 128, 8),
        ("白色背景,右上角有一个大大的紫色的五角星。", 128, 128, 8),
        ("an orange cross", 96, 64, 3),  # image tokens with padding
        ("a big black ring at the bottom, please draw it simply, on a plain pink background, and nothing else", 64, 64, 8),
    ],
)
def test_same_latents_in_same_out(model: Model, stock: ZImagePipeline, prompt: str, width: int, height: int, steps: int) -> None:
    latents = torch.from_numpy(noise(7, width, height))
    settings = {"width": width, "height": height, "num_inference_steps": steps, "guidance_scale": 0.0, "latents": latents}
    expected = stock(prompt, output_type="latent", **settings).images
    picture, _ = draw(model, drawing(prompt, width=width, height=height, steps=steps, seed=7))
    assert float((picture.latents - expected).abs().max()) <= LATENT_TOLERANCE
    pixels = np.asarray(stock(prompt, **settings).images[0]).astype(int)
    drawn = np.frombuffer(picture.rgb, np.uint8).reshape(pixels.shape).astype(int)
    assert np.abs(drawn - pixels).max() <= 1


def test_guidance_as_stock(model: Model, stock: ZImagePipeline) -> None:
    from dataclasses import replace

    latents = torch.from_numpy(noise(7, 64, 64))
    expected = stock(
        PROMPT,
        width=64,
        height=64,
        num_inference_steps=3,
        guidance_scale=2.0,
        negative_prompt="a blue square",
        latents=latents,
        output_type="latent",
    ).images
    order = replace(drawing(width=64, height=64, steps=3, seed=7), guidance_scale=2.0, negative_prompt="a blue square")
    picture, drawn = draw(model, order)
    assert float((picture.latents - expected).abs().max()) <= LATENT_TOLERANCE
    assert drawn.forward_count == 6


def test_lora_of_strength_0_is_the_bare_model_to_the_byte(model: Model) -> None:
    bare, _ = draw(model, drawing())
    nothing, _ = draw(model, drawing(loras=(LoraUse("pastel", 0.0),)))
    full, _ = draw(model, drawing(loras=(LoraUse("pastel", 1.0),)))
    after, _ = draw(model, drawing())
    assert nothing.rgb == bare.rgb == after.rgb
    assert full.rgb != bare.rgb
