"""Writes the vectors that the engines are tested against, all from stock torch, transformers and diffusers.

python vectors.py MODEL_DIR OUT_DIR
"""
import base64
import hashlib
import json
import sys
import zlib
from pathlib import Path

import numpy as np
import torch
from diffusers import ZImagePipeline
from transformers import Qwen2Tokenizer

SEEDS = [0, 1, 42, 2**32 - 1, 2**32 + 5, 2**53 + 1]
# torch fills fewer than 16 values by another path than 16 and more, and 17 has a tail.
NOISE_SHAPES = [[7], [16], [17], [1, 16, 8, 8], [1, 16, 16, 16]]
EDGE_VALUES = 20
STEPS = 8
PROMPTS = [
    "a red circle on a blue background",
    "A large yellow star in the top left corner on a purple background.",
    "small green heart on the right, white background",
    "a pink background with a big black ring at the bottom",
    "an orange cross",
    "draw a tiny cyan triangle in the bottom right corner on a black background",
    "Please draw a simple picture for me. There should be a small white square on the left, and the whole background should be plain red.",
    "蓝色背景上的红色圆形",
    "白色背景,右上角有一个大大的紫色的五角星。",
    "一个小黑色爱心在黄色背景的左边",
    "粉色的圆环",
    "请帮我画一幅简单的图画\uff0c画面里只有一个绿色十字\uff0c它的位置在下方\uff0c整个背景都是橙色的\uff0c没有其他的东西。",
    "café ☕ 龙 <|im_end|> x",
]
PICTURES = [
    {"name": "english", "prompt": PROMPTS[1], "width": 128, "height": 128, "seed": 42},
    {"name": "chinese", "prompt": PROMPTS[9], "width": 128, "height": 128, "seed": 7},
    {"name": "padded image tokens", "prompt": PROMPTS[0], "width": 96, "height": 64, "seed": 2**32 + 5},
    {"name": "caption over 32 tokens", "prompt": PROMPTS[6], "width": 128, "height": 128, "seed": 3},
    {"name": "lora", "prompt": PROMPTS[0], "width": 128, "height": 128, "seed": 5, "lora": "pastel", "strength": 0.8},
]


def floats(values: torch.Tensor) -> str:
    return base64.b64encode(values.contiguous().numpy().astype("<f4").tobytes()).decode()


def noise_vectors() -> list[dict]:
    rows = []
    for seed in SEEDS:
        for shape in NOISE_SHAPES:
            values = torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed)).flatten()
            rows.append({
                "seed": str(seed),
                "shape": shape,
                "first": floats(values[:EDGE_VALUES]),
                "last": floats(values[-EDGE_VALUES:]),
                "sha256": hashlib.sha256(values.numpy().astype("<f4").tobytes()).hexdigest(),
            })
    return rows


def template(tokenizer: Qwen2Tokenizer, prompt: str) -> str:
    message = [{"role": "user", "content": prompt}]
    return tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True, enable_thinking=True)


def token_vectors(tokenizer: Qwen2Tokenizer) -> list[dict]:
    return [{"prompt": p, "ids": tokenizer(template(tokenizer, p)).input_ids} for p in PROMPTS]


@torch.no_grad()
def picture_vectors(folder: Path) -> list[dict]:
    pipe = ZImagePipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    rows = []
    for picture in PICTURES:
        if "lora" in picture:
            path = folder / "loras" / f"{picture['lora']}.safetensors"
            if not path.exists():
                continue
            pipe.load_lora_weights(str(path), adapter_name=picture["lora"])
            pipe.set_adapters([picture["lora"]], [picture["strength"]])
        latents = pipe(
            prompt=picture["prompt"], width=picture["width"], height=picture["height"], num_inference_steps=STEPS,
            guidance_scale=0.0, generator=torch.Generator("cpu").manual_seed(picture["seed"]), output_type="latent",
        ).images
        image = pipe.vae.decode(latents / pipe.vae.config.scaling_factor + pipe.vae.config.shift_factor).sample
        rgb = (image[0].clamp(-1, 1) * 127.5 + 127.5).round().byte().permute(1, 2, 0).contiguous().numpy().tobytes()
        rows.append({
            **picture,
            "seed": str(picture["seed"]),
            "steps": STEPS,
            "tokens": len(pipe.tokenizer(template(pipe.tokenizer, picture["prompt"])).input_ids),
            "latentsShape": list(latents.shape),
            "latents": floats(latents),
            "rgbSha256": hashlib.sha256(rgb).hexdigest(),
            "rgbDeflated": base64.b64encode(zlib.compress(rgb, 9)).decode(),
        })
    return rows


def write(path: Path, rows: list[dict]) -> None:
    path.write_text("[\n" + ",\n".join("  " + json.dumps(r, ensure_ascii=False) for r in rows) + "\n]\n")


def main() -> None:
    folder, out = Path(sys.argv[1]), Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = Qwen2Tokenizer.from_pretrained(folder / "tokenizer")
    write(out / "noise.json", noise_vectors())
    write(out / "tokens.json", token_vectors(tokenizer))
    write(out / "pipeline.json", picture_vectors(folder))
    print({p.name: p.stat().st_size for p in sorted(out.iterdir())})


if __name__ == "__main__":
    main()
