"""Models of other families, tiny and random: the same events, the same bytes for the same noise, cancel and pause at every step."""

import json
import string
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import MODEL_DIR, draw, drawing, quiet
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    PNDMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel, T5Tokenizer

from engine_diffusers.config import Options
from engine_diffusers.drawing import Checkpoint, Model, Picture, Step
from engine_diffusers.errors import StatusError
from engine_diffusers.loading import load
from engine_diffusers.order import LoraUse


def clip_tokenizer() -> CLIPTokenizer:
    letters = [*string.ascii_lowercase, *(f"{letter}</w>" for letter in string.ascii_lowercase)]
    vocab = {token: i for i, token in enumerate([*letters, "<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizer(vocab=vocab, merges=[], model_max_length=77)


def clip_model(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    size = len(tokenizer)
    sizes = {"hidden_size": 32, "intermediate_size": 37, "num_attention_heads": 4, "num_hidden_layers": 2, "projection_dim": 32}
    return CLIPTextModel(CLIPTextConfig(vocab_size=size, bos_token_id=size - 2, eos_token_id=size - 1, pad_token_id=size - 1, **sizes))


def autoencoder(latent_channels: int) -> AutoencoderKL:
    blocks = (8, 8, 8, 8)
    return AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        block_out_channels=blocks,
        latent_channels=latent_channels,
        norm_num_groups=4,
        scaling_factor=0.3611,
        shift_factor=0.1159 if latent_channels == 16 else None,
    )


def stable_diffusion() -> StableDiffusionPipeline:
    tokenizer = clip_tokenizer()
    unet = UNet2DConditionModel(
        block_out_channels=(8, 16),
        layers_per_block=1,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=2,
        norm_num_groups=4,
    )
    return StableDiffusionPipeline(
        vae=autoencoder(4),
        text_encoder=clip_model(tokenizer),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=PNDMScheduler(skip_prk_steps=True, steps_offset=1),  # one step more than ordered, as Stable Diffusion 1 ships it
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def flux() -> FluxPipeline:
    tokenizer = clip_tokenizer()
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -10.0), *((letter, -2.0) for letter in ["▁", *string.ascii_lowercase])]
    second = T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=512)
    config = T5Config(vocab_size=64, d_model=32, d_kv=8, d_ff=37, num_layers=1, num_heads=4)
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=64,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        axes_dims_rope=(4, 4, 8),
    )
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=autoencoder(16),
        text_encoder=clip_model(tokenizer),
        tokenizer=tokenizer,
        text_encoder_2=T5EncoderModel(config),
        tokenizer_2=second,
        transformer=transformer,
    )


LORA_LAYER = {
    "stable-diffusion": "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q",
    "flux": "single_transformer_blocks.0.attn.to_q",
}


@pytest.fixture(scope="module", params=["stable-diffusion", "flux"])
def other(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    pipe: Any = stable_diffusion() if request.param == "stable-diffusion" else flux()
    pipe.save_pretrained(folder)
    backbone = pipe.unet if request.param == "stable-diffusion" else pipe.transformer
    layer = LORA_LAYER[request.param]
    rows, columns = backbone.get_submodule(layer).weight.shape
    (folder / "loras").mkdir()
    save_file(
        {f"{layer}.lora_A.weight": torch.randn(2, columns), f"{layer}.lora_B.weight": torch.randn(rows, 2)},
        folder / "loras/mine.safetensors",
    )
    manifest = json.loads((MODEL_DIR / "mesh.json").read_text())
    manifest.update(name=request.param, family=request.param, negativePrompt=True, digests={})
    manifest["limits"].update(maxGuidanceScale=20, maxPromptTokens=77)
    manifest["loras"] = [{"name": "mine", "file": "loras/mine.safetensors", "description": "Random."}]
    (folder / "mesh.json").write_text(json.dumps(manifest))
    model = load(str(folder), Options(), quiet)
    yield model
    model.release()


def order(**changes: Any) -> Any:
    return replace(drawing("a cat", width=64, height=64, steps=3), guidance_scale=2.0, **changes)


def told(model: Model, what: Any) -> list[str]:
    return [
        f"step {e.step}/{e.total}" if isinstance(e, Step) else type(e).__name__ for e in model.draw(what) if not isinstance(e, Checkpoint)
    ]


def test_events_and_bytes(other: Model) -> None:
    assert told(other, order()) == ["step 1/3", "step 2/3", "step 3/3", "Picture", "Drawn"]
    first, drawn = draw(other, order())
    again, _ = draw(other, order())
    another, _ = draw(other, order(noises=drawing(seed=2, width=64, height=64).noises))
    assert first.rgb == again.rgb != another.rgb
    assert len(first.rgb) == 64 * 64 * 3
    assert drawn.prompt_tokens > 0


def test_paused_and_interleaved_it_is_the_same_picture(other: Model) -> None:
    alone, _ = draw(other, order())
    paused = other.draw(order())
    next(event for event in paused if isinstance(event, Step))
    between, _ = draw(other, order(noises=drawing(seed=2, width=64, height=64).noises, loras=(LoraUse("mine", 1.0),)))
    picture = next(event for event in paused if isinstance(event, Picture))
    assert picture.rgb == alone.rgb != between.rgb


def test_closed_in_the_middle_it_leaves_nothing_behind(other: Model) -> None:
    import threading

    alone, _ = draw(other, order())
    threads = threading.active_count()
    left = other.draw(order())
    next(event for event in left if isinstance(event, Step))
    left.close()  # type: ignore[attr-defined]
    assert threading.active_count() == threads
    assert draw(other, order())[0].rgb == alone.rgb


@pytest.mark.parametrize("where", ["backbone", "vae"])
def test_out_of_memory_once_costs_no_step_twice_and_decodes_in_tiles(other: Model, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    expected, _ = draw(other, order())
    pipe = other._pipe
    part, method = (pipe.vae, "decode") if where == "vae" else (other._backbone, "forward")
    tiled: list[bool] = []
    decode = pipe.vae.decode
    monkeypatch.setattr(pipe.vae, "decode", lambda *args, **named: (tiled.append(pipe.vae.use_tiling), decode(*args, **named))[1])
    monkeypatch.setattr(part, method, failing_at(2 if where == "backbone" else 1, getattr(part, method)))
    assert told(other, order()) == ["step 1/3", "step 2/3", "step 3/3", "Picture", "Drawn"]
    assert tiled[-1]
    monkeypatch.undo()
    assert draw(other, order())[0].rgb == expected.rgb  # whole again, and to the byte
    assert not pipe.vae.use_tiling


def failing_at(call: int, real: Any) -> Any:
    count = 0

    def failing(*args: object, **named: object) -> Any:
        nonlocal count
        count += 1
        if count == call:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.50 GiB.")
        return real(*args, **named)

    return failing


def test_out_of_memory_twice_is_told(other: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def short(*_args: object, **_named: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.50 GiB.")

    with monkeypatch.context() as patch:
        patch.setattr(other._backbone, "forward", short)
        with pytest.raises(StatusError) as caught:
            draw(other, order())
    assert (caught.value.reason, caught.value.metadata) == ("OUT_OF_MEMORY", {"needed_bytes": str(3 * 2**29)})
    draw(other, order())


def test_lora(other: Model) -> None:
    bare, _ = draw(other, order())
    nothing, _ = draw(other, order(loras=(LoraUse("mine", 0.0),)))
    full, _ = draw(other, order(loras=(LoraUse("mine", 1.0),)))
    assert nothing.rgb == bare.rgb != full.rgb


def test_weights_of_8_bits_are_refused(other: Model) -> None:
    with pytest.raises(StatusError, match="Z-Image family") as caught:
        load(str(other.folder.dir), Options(weights="fp8"), quiet)
    assert caught.value.reason == "MODEL_UNUSABLE"
    assert not other.prepare("a cat", "")


def test_too_long_a_prompt_and_noise_that_is_none(other: Model) -> None:
    with pytest.raises(StatusError) as caught:
        draw(other, order(prompt="abcdefgh " * 60))
    assert caught.value.reason == "PROMPT_TOO_LONG"
    with pytest.raises(StatusError) as caught:
        draw(other, order(noises=(np.full((1, 16, 8, 8), np.nan, np.float32),)))
    assert caught.value.reason == "NAN_OUTPUT"
    draw(other, order())
