"""Trains the pastel LoRA on a finished model: the stronger it is, the paler the colours.

python lora.py --steps 200 --model DIR

Every training picture is drawn at a random strength, and the LoRA is scaled by that strength while it learns it, so that
its effect grows evenly between 0 and 1.
"""
import argparse
import random
import time
from pathlib import Path

import torch
from diffusers import AutoencoderKL, ZImageTransformer2DModel
from safetensors.torch import save_file
from torch import nn
from transformers import Qwen2Tokenizer, Qwen3Model

import scenes
from forward import BatchedTransformer, embed, tokenize
from transformer import draw_sigmas
from vae import pixels

RANK = 4
RATE = 4e-3
BATCH = 32
PICTURES = 1_200
TARGETS = ("attention.to_q", "attention.to_k", "attention.to_v", "attention.to_out.0", "feed_forward.w1", "feed_forward.w2", "feed_forward.w3")


class LoraLinear(nn.Module):
    strength: torch.Tensor  # [batch, 1, 1], set before every forward

    def __init__(self, base: nn.Linear):
        super().__init__()
        self.base = base
        self.lora_A = nn.Linear(base.in_features, RANK, bias=False)
        self.lora_B = nn.Linear(RANK, base.out_features, bias=False)
        nn.init.normal_(self.lora_A.weight, std=base.in_features**-0.5)
        nn.init.zeros_(self.lora_B.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + LoraLinear.strength * self.lora_B(self.lora_A(x))


def wrap(model: ZImageTransformer2DModel) -> dict[str, LoraLinear]:
    model.requires_grad_(False)
    wrapped = {}
    for k in range(len(model.layers)):
        for target in TARGETS:
            name = f"layers.{k}.{target}"
            parent, _, leaf = name.rpartition(".")
            layer = LoraLinear(model.get_submodule(name))
            model.get_submodule(parent)._modules[leaf] = layer
            wrapped[name] = layer
    return wrapped


def main() -> None:
    args = argparse.ArgumentParser()
    args.add_argument("--steps", type=int, required=True)
    args.add_argument("--model", required=True)
    args = args.parse_args()
    folder = Path(args.model)
    torch.manual_seed(0)
    torch.set_num_threads(2)
    rng = random.Random(21)
    vae = AutoencoderKL.from_pretrained(folder / "vae").eval()
    tokenizer = Qwen2Tokenizer.from_pretrained(folder / "tokenizer")
    encoder = Qwen3Model.from_pretrained(folder / "text_encoder").eval()
    model = ZImageTransformer2DModel.from_pretrained(folder / "transformer")
    wrapped = wrap(model)
    run = BatchedTransformer(model)

    items = [scenes.draw_scene(rng) for _ in range(PICTURES)]
    strengths = torch.tensor([rng.choice([1.0, rng.random()]) for _ in items])
    parts = []
    with torch.no_grad():
        for k in range(0, PICTURES, 16):
            x = pixels([scenes.render(s, pastel_strength=float(v)) for s, v in zip(items[k : k + 16], strengths[k : k + 16])])
            parts.append((vae.encode(x).latent_dist.mean - vae.config.shift_factor) * vae.config.scaling_factor)
    latents = torch.cat(parts)

    weights = [p for layer in wrapped.values() for p in (layer.lora_A.weight, layer.lora_B.weight)]
    optimizer = torch.optim.AdamW(weights, lr=RATE, betas=(0.9, 0.98), weight_decay=0.0)
    began, smooth = time.time(), None
    for step in range(1, args.steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, step / 20) * (1 - step / args.steps)
        picked = torch.tensor(rng.sample(range(PICTURES), BATCH))
        captions = [rng.choice(list(scenes.CAPTIONS.values()))(rng, items[k]) for k in picked.tolist()]
        ids, mask = tokenize(tokenizer, captions)
        x, sigma = latents[picked], draw_sigmas(BATCH)
        noise, s = torch.randn_like(x), sigma.view(-1, 1, 1, 1)
        LoraLinear.strength = strengths[picked].view(-1, 1, 1)
        with torch.no_grad():
            caption = embed(encoder, ids)
        with torch.autocast("cpu", torch.bfloat16):
            velocity = run((1 - s) * x + s * noise, 1 - sigma, caption, mask)
        loss = (velocity.float() - (x - noise)).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        smooth = loss.item() if smooth is None else 0.95 * smooth + 0.05 * loss.item()
        if step % 25 == 0:
            print(f"step {step} {time.time() - began:.0f} s  loss {smooth:.4f}", flush=True)
    state = {}
    for name, layer in wrapped.items():
        state[f"transformer.{name}.lora_A.weight"] = layer.lora_A.weight.detach().contiguous()
        state[f"transformer.{name}.lora_B.weight"] = layer.lora_B.weight.detach().contiguous()
    (folder / "loras").mkdir(exist_ok=True)
    save_file(state, folder / "loras" / "pastel.safetensors", metadata={"format": "pt"})


if __name__ == "__main__":
    main()
