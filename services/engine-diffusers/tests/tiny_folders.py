"""Model folders of other families than Z-Image, tiny and random. Tests build them, those of the mesh too:

    python tests/tiny_folders.py stable-diffusion /tmp/folder"""

import json
import string
import sys
from pathlib import Path
from typing import Any

import torch
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

EMBEDDED_MODEL = Path(__file__).resolve().parents[3] / "libs/embedded-model/z-image-tiny"


def build(family: str, folder: Path) -> None:
    torch.manual_seed(0)
    pipe: Any = FAMILIES[family]()
    pipe.save_pretrained(folder)
    backbone = pipe.unet if family == "stable-diffusion" else pipe.transformer
    layer = LORA_LAYER[family]
    rows, columns = backbone.get_submodule(layer).weight.shape
    (folder / "loras").mkdir()
    save_file(
        {f"{layer}.lora_A.weight": torch.randn(2, columns), f"{layer}.lora_B.weight": torch.randn(rows, 2)},
        folder / "loras/mine.safetensors",
    )
    manifest = json.loads((EMBEDDED_MODEL / "mesh.json").read_text())
    manifest.update(name=family, family=family, negativePrompt=True, digests={})
    manifest["limits"].update(maxGuidanceScale=20, maxPromptTokens=77)
    manifest["loras"] = [{"name": "mine", "file": "loras/mine.safetensors", "description": "Random."}]
    (folder / "mesh.json").write_text(json.dumps(manifest))


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
FAMILIES = {"stable-diffusion": stable_diffusion, "flux": flux}

if __name__ == "__main__":
    build(sys.argv[1], Path(sys.argv[2]))
