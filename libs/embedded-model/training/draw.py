"""Draws pictures of a model folder with torch.

python draw.py held-out MODEL_DIR OUT_DIR   the held-out captions, for score.ts
python draw.py sheet MODEL_DIR              ../sheet.png and ../lora.png
python draw.py saturation MODEL_DIR         mean saturation of twelve pictures by strength of the pastel LoRA
"""
import json
import sys
from pathlib import Path

import numpy as np
import torch
from diffusers import ZImagePipeline
from PIL import Image

import scenes
from forward import BatchedTransformer, embed, sample, tokenize

BATCH = 24
GAP_PX = 8
SHEET = [
    ("a red circle on a blue background", 128, 128),
    ("A large yellow star in the top left corner on a purple background", 128, 128),
    ("small green heart on the right, white background", 128, 128),
    ("a pink background with a big black ring at the bottom", 128, 128),
    ("蓝色背景上的红色圆形", 128, 128),
    ("白色背景,右上角有一个大大的紫色的五角星。", 128, 128),
    ("一个小黑色爱心在黄色背景的左边", 128, 128),
    ("绿色背景右下角的小橙色三角形", 128, 128),
    ("draw a tiny cyan triangle in the bottom right corner on a black background", 128, 128),
    ("an orange cross", 128, 128),
    ("粉色的圆环", 128, 128),
    ("上方有一个大白色方块,红色背景", 128, 128),
    ("a big white cross in the middle on a green background", 96, 128),
    ("large blue heart, orange background", 128, 96),
    ("青色背景左边的大红色正方形", 96, 96),
    ("a large black star on a yellow background", 64, 64),
]
STRIP_PROMPTS = ["a large red circle on a blue background", "紫色背景上的大大的绿色爱心"]
STRIP_STRENGTHS = [0.0, 0.25, 0.5, 0.75, 1.0]
STRIP_SEED = 5
SATURATION_PROMPTS = 12


def to_rgb(images: torch.Tensor) -> np.ndarray:
    return (images.clamp(-1, 1) * 127.5 + 127.5).round().byte().permute(0, 2, 3, 1).numpy()


@torch.no_grad()
def draw_held_out(pipe: ZImagePipeline, rows: list[dict]) -> np.ndarray:
    run, side, pictures = BatchedTransformer(pipe.transformer), scenes.NATIVE_SIDE_PX, [None] * len(rows)
    buckets: dict[int, list[int]] = {}
    for k, row in enumerate(rows):
        buckets.setdefault(tokenize(pipe.tokenizer, [row["caption"]])[0].shape[1], []).append(k)
    for members in buckets.values():
        for start in range(0, len(members), BATCH):
            part = members[start : start + BATCH]
            ids, mask = tokenize(pipe.tokenizer, [rows[k]["caption"] for k in part])
            # One generator a picture, as the pipeline does for one picture.
            noise = torch.cat([torch.randn(1, 16, side // 8, side // 8, generator=torch.Generator().manual_seed(rows[k]["seed"])) for k in part])
            latents = sample(run, embed(pipe.text_encoder, ids), mask, noise)
            images = to_rgb(pipe.vae.decode(latents / pipe.vae.config.scaling_factor + pipe.vae.config.shift_factor).sample)
            for k, image in zip(part, images):
                pictures[k] = image
    return np.stack(pictures)


def picture(pipe: ZImagePipeline, prompt: str, width_px: int, height_px: int, seed: int) -> Image.Image:
    return pipe(
        prompt=prompt, width=width_px, height=height_px, num_inference_steps=8, guidance_scale=0.0,
        generator=torch.Generator().manual_seed(seed),
    ).images[0]


def grid(images: list[Image.Image], columns: int, path: Path) -> None:
    cell = scenes.NATIVE_SIDE_PX + GAP_PX
    sheet = Image.new("RGB", (columns * cell + GAP_PX, -(-len(images) // columns) * cell + GAP_PX), (232, 232, 232))
    for k, image in enumerate(images):
        free_x, free_y = scenes.NATIVE_SIDE_PX - image.width, scenes.NATIVE_SIDE_PX - image.height
        sheet.paste(image, (GAP_PX + k % columns * cell + free_x // 2, GAP_PX + k // columns * cell + free_y // 2))
    sheet.save(path, optimize=True)


def mean_saturation(image: Image.Image) -> float:
    """The mean over all pixels of (most - least channel) / most channel."""
    rgb = np.asarray(image, np.float64)
    most = rgb.max(2)
    return float(((most - rgb.min(2)) / np.maximum(most, 1)).mean())


def print_saturations(pipe: ZImagePipeline) -> None:
    rows = [r for r in json.loads((scenes.HOME / "heldout.json").read_text()) if not {r["colour"], r["background"]} & {"black", "white"}]
    picked = [r for language in ("en", "zh") for r in [r for r in rows if r["language"] == language][: SATURATION_PROMPTS // 2]]
    falling = 0
    for row in picked:
        values = []
        for strength in STRIP_STRENGTHS:
            pipe.set_adapters(["pastel"], [strength])
            values.append(mean_saturation(picture(pipe, row["caption"], 128, 128, row["seed"])))
        falling += all(a > b for a, b in zip(values, values[1:]))
        print(" ".join(f"{v:.3f}" for v in values), row["caption"])
    print(f"saturation falls at every step for {falling} of {len(picked)}")


def main() -> None:
    folder = Path(sys.argv[2])
    torch.set_num_threads(1)
    pipe = ZImagePipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    if sys.argv[1] == "held-out":
        rows = json.loads((scenes.HOME / "heldout.json").read_text())
        out = Path(sys.argv[3])
        out.mkdir(parents=True, exist_ok=True)
        (out / "heldout.rgb").write_bytes(draw_held_out(pipe, rows).tobytes())
        return
    if sys.argv[1] == "sheet":
        grid([picture(pipe, *row, seed=k) for k, row in enumerate(SHEET)], 4, scenes.HOME / "sheet.png")
    pipe.load_lora_weights(str(folder / "loras" / "pastel.safetensors"), adapter_name="pastel")
    if sys.argv[1] == "saturation":
        print_saturations(pipe)
        return
    strip = []
    for prompt in STRIP_PROMPTS:
        for strength in STRIP_STRENGTHS:
            pipe.set_adapters(["pastel"], [strength])
            strip.append(picture(pipe, prompt, 128, 128, STRIP_SEED))
    grid(strip, len(STRIP_STRENGTHS), scenes.HOME / "lora.png")


if __name__ == "__main__":
    main()
