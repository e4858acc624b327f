"""A model folder of Z-Image-Turbo's shapes with random weights: every step costs what it costs with the real ones, and nothing is
downloaded. What it draws shows nothing.

    npm run model:random -- /models/random            # on a GPU machine: 20 GB, a minute
    npm run model:random -- /tmp/random --tiny        # anywhere: 1 MB, a second"""

import argparse
import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, ZImageTransformer2DModel
from torch import nn
from transformers import Qwen3Config, Qwen3Model

from engine_diffusers.loading import be_quiet

EMBEDDED_MODEL = Path(__file__).resolve().parents[3] / "libs/embedded-model/z-image-tiny"
# Transformer 12.3 GB, text encoder 8, decoder 0.2.
_FULL_BYTES = 21_000_000_000
_SHARD_SIZE = "5GB"


class Refusal(Exception):
    """A sentence for whoever started the program."""


@dataclass(frozen=True)
class Shapes:
    """What the classes of diffusers and transformers are made with."""

    name: str
    transformer: Mapping[str, Any]
    text_encoder: Mapping[str, Any]
    vae: Mapping[str, Any]
    limits: Mapping[str, Any]
    side: int
    """Of a usual picture, in pixels."""
    dtype: torch.dtype


_S3_DIT = {
    "all_patch_size": (2,),
    "all_f_patch_size": (1,),
    "in_channels": 16,
    "norm_eps": 1e-5,
    "qk_norm": True,
    "rope_theta": 256.0,
    "t_scale": 1000.0,
}
_QWEN3 = {"rms_norm_eps": 1e-6, "tie_word_embeddings": True, "use_cache": False, "rope_theta": 1_000_000.0}
_AUTOENCODER = {
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "latent_channels": 16,
    "scaling_factor": 0.3611,
    "shift_factor": 0.1159,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}
_LIMITS = {
    "sizeMultiple": 16,
    "minSteps": 1,
    "maxSteps": 50,
    "minGuidanceScale": 0,
    "maxGuidanceScale": 0,
    "maxImageCount": 4,
    "maxPromptTokens": 512,
    "maxLoras": 4,
    "minLoraStrength": 0,
    "maxLoraStrength": 2,
}


def _between(least: int, most: int) -> dict[str, int]:
    return {"minWidth": least, "maxWidth": most, "minHeight": least, "maxHeight": most}


# As the model's own configurations have it: 6.15 billion parameters in the transformer.
FULL = Shapes(
    name="z-image-turbo-random",
    transformer={
        **_S3_DIT,
        "dim": 3840,
        "n_layers": 30,
        "n_refiner_layers": 2,
        "n_heads": 30,
        "n_kv_heads": 30,
        "cap_feat_dim": 2560,
        "axes_dims": [32, 48, 48],
        "axes_lens": [1536, 512, 512],
    },
    text_encoder={
        **_QWEN3,
        "hidden_size": 2560,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "intermediate_size": 9728,
        "vocab_size": 151_936,
        "max_position_embeddings": 40_960,
    },
    vae={**_AUTOENCODER, "block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "norm_num_groups": 32},
    limits={**_LIMITS, **_between(256, 2048)},
    side=1024,
    dtype=torch.bfloat16,
)

TINY = Shapes(
    name="z-image-tiny-random",
    transformer={
        **_S3_DIT,
        "dim": 64,
        "n_layers": 2,
        "n_refiner_layers": 1,
        "n_heads": 2,
        "n_kv_heads": 2,
        "cap_feat_dim": 32,
        "axes_dims": [8, 12, 12],
        "axes_lens": [640, 64, 64],
    },
    text_encoder={
        **_QWEN3,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "intermediate_size": 64,
        "vocab_size": 708,
        "max_position_embeddings": 1024,
    },
    vae={**_AUTOENCODER, "block_out_channels": [8, 8, 8, 8], "layers_per_block": 1, "norm_num_groups": 4},
    limits={**_LIMITS, **_between(64, 256)},
    side=128,
    dtype=torch.float32,
)


def build(folder: Path, shapes: Shapes, device: torch.device) -> None:
    """mesh.json comes last: a folder that has one is whole."""
    be_quiet()
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    for name, make in _PARTS.items():
        with _made_with(device, shapes.dtype):
            part = make(shapes)
        part.save_pretrained(folder / name, max_shard_size=_SHARD_SIZE)
        del part
        if device.type == "cuda":
            torch.cuda.empty_cache()
    FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, use_dynamic_shifting=False, shift=3.0).save_pretrained(folder / "scheduler")
    # The embedded model's: its token ids are among those of any larger vocabulary.
    shutil.copytree(EMBEDDED_MODEL / "tokenizer", folder / "tokenizer", dirs_exist_ok=True)
    shutil.copyfile(EMBEDDED_MODEL / "model_index.json", folder / "model_index.json")
    manifest = {
        "name": shapes.name,
        "revision": "1",
        "family": "z-image",
        "languages": ["en"],
        "defaults": {"width": shapes.side, "height": shapes.side, "steps": 8, "guidanceScale": 0},
        "limits": shapes.limits,
        "negativePrompt": False,
        "loras": [],
        "digests": {},
    }
    (folder / "mesh.json").write_text(json.dumps(manifest, indent=2))


def parameter_counts(shapes: Shapes) -> dict[str, int]:
    """By part, without memory for them."""
    with torch.device("meta"):
        return {name: sum(parameter.numel() for parameter in make(shapes).parameters()) for name, make in _PARTS.items()}


def _transformer(shapes: Shapes) -> nn.Module:
    return ZImageTransformer2DModel(**shapes.transformer)


def _text_encoder(shapes: Shapes) -> nn.Module:
    return Qwen3Model(Qwen3Config(**shapes.text_encoder))


def _vae(shapes: Shapes) -> nn.Module:
    return AutoencoderKL(**shapes.vae)


_PARTS = {"transformer": _transformer, "text_encoder": _text_encoder, "vae": _vae}


@contextmanager
def _made_with(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    usual = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            yield
    finally:
        torch.set_default_dtype(usual)


def main(arguments: list[str] | None = None) -> None:
    description = "Builds a model folder of Z-Image-Turbo's shapes with random weights."
    parser = argparse.ArgumentParser(prog="model:random", description=description)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tiny", action="store_true", help="small shapes, for a try-out on the CPU")
    options = parser.parse_args(arguments)
    try:
        build_if_absent(options.folder, TINY if options.tiny else FULL)
    except Refusal as refusal:
        sys.exit(f"model:random: {refusal}")


def build_if_absent(folder: Path, shapes: Shapes) -> None:
    if (folder / "mesh.json").is_file():
        print(f"{folder} is there already")
        return
    if shapes is FULL:
        if not torch.cuda.is_available():
            raise Refusal("expected an NVIDIA GPU that torch finds, to fill 10 billion weights; small shapes on the CPU: --tiny")
        folder.mkdir(parents=True, exist_ok=True)
        free_bytes = shutil.disk_usage(folder).free
        if free_bytes < _FULL_BYTES:
            raise Refusal(f"expected {_FULL_BYTES / 1e9:.0f} GB free at {folder}, found {free_bytes / 1e9:.1f}")
    build(folder, shapes, torch.device("cuda" if shapes is FULL else "cpu"))
    counts = ", ".join(f"{name} {count / 1e6:,.1f} M" for name, count in parameter_counts(shapes).items())
    print(f"built {folder}: {counts} parameters")


if __name__ == "__main__":
    main()
