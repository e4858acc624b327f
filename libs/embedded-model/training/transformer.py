"""Trains the transformer and the text encoder together, as a rectified flow on the latents of the autoencoder.

python transformer.py --seconds 2400 --vae DIR --tokenizer DIR --out DIR [--start DIR]

Half of the noise levels are exactly the eight that inference visits, so no distillation is needed for eight steps.
"""
import argparse
import random
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, ZImageTransformer2DModel
from transformers import Qwen2Tokenizer, Qwen3Config, Qwen3Model

import scenes
from forward import BatchedTransformer, block, embed, sigmas, tokenize
from muon import Muon
from vae import pixels

PEAK_RATE = 2.5e-3
BATCH = 64
NATIVE_LATENTS = 14_000
OTHER_LATENTS = 300
# Width and height in pixels of the other sizes, which share one batch in eight.
OTHER_SIZES_PX = [(64, 64), (96, 96), (96, 64), (64, 96), (128, 96), (96, 128), (160, 160), (192, 128), (192, 192), (256, 256)]
OTHER_SIZE_SHARE = 0.12
LONG_CAPTION_SHARE = 0.12
AVERAGE_DECAY = 0.998


def build_transformer() -> ZImageTransformer2DModel:
    return ZImageTransformer2DModel(
        all_patch_size=(2,), all_f_patch_size=(1,), in_channels=16, dim=144, n_layers=6, n_refiner_layers=1, n_heads=4,
        n_kv_heads=4, norm_eps=1e-5, qk_norm=True, cap_feat_dim=128, rope_theta=256.0, t_scale=1000.0,
        axes_dims=[12, 12, 12], axes_lens=[640, 64, 64],
    )


def build_text_encoder(vocabulary: int) -> Qwen3Model:
    """Three layers, of which the pipeline uses two: it reads the output of the last but one."""
    return Qwen3Model(Qwen3Config(
        vocab_size=vocabulary, hidden_size=128, intermediate_size=256, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, head_dim=32, max_position_embeddings=1024, rope_theta=1_000_000.0, rms_norm_eps=1e-6,
        attention_bias=False, tie_word_embeddings=True, use_cache=False,
    ))


@torch.no_grad()
def prepare(transformer: ZImageTransformer2DModel, encoder: Qwen3Model) -> None:
    """Starts with open gates and a quiet output, and with embeddings that are large against the learning rate."""
    dim = transformer.config.dim
    for layer in [*transformer.noise_refiner, *transformer.layers]:
        modulation = layer.adaLN_modulation[0]
        modulation.weight.normal_(0, 0.02)
        modulation.bias.zero_()
        modulation.bias[dim : 2 * dim] = 0.4
        modulation.bias[3 * dim :] = 0.4
    final = transformer.all_final_layer["2-1"]
    final.linear.weight.mul_(0.1)
    final.linear.bias.zero_()
    transformer.cap_pad_token.normal_(0, 0.02)
    transformer.x_pad_token.normal_(0, 0.02)
    encoder.embed_tokens.weight.normal_(0, 0.1)


@torch.no_grad()
def encode(vae: AutoencoderKL, items: list[scenes.Scene], width_px: int, height_px: int, batch: int = 16) -> torch.Tensor:
    parts = []
    for k in range(0, len(items), batch):
        x = pixels([scenes.render(s, width_px, height_px) for s in items[k : k + batch]])
        parts.append(vae.encode(x).latent_dist.mean)
    return ((torch.cat(parts) - vae.config.shift_factor) * vae.config.scaling_factor).half()


def make_latents(vae: AutoencoderKL) -> dict:
    rng = random.Random(7)
    native = (scenes.NATIVE_SIDE_PX, scenes.NATIVE_SIDE_PX)
    store = {}
    for size in [native, *OTHER_SIZES_PX]:
        count = NATIVE_LATENTS if size == native else OTHER_LATENTS
        items = [scenes.draw_scene(rng, False, *size) for _ in range(count)]
        store[size] = (encode(vae, items, *size), items)
    return store


def draw_batch(rng: random.Random, store: dict) -> tuple[torch.Tensor, list[str]]:
    native = (scenes.NATIVE_SIDE_PX, scenes.NATIVE_SIDE_PX)
    long = rng.random() < LONG_CAPTION_SHARE
    size = native if rng.random() > OTHER_SIZE_SHARE else rng.choice(OTHER_SIZES_PX)
    # Larger pictures come in smaller batches, so that every step takes about as long.
    count = min(BATCH, max(12, BATCH * native[0] * native[1] // (size[0] * size[1])))
    latents, items = store[size]
    picked = rng.sample(range(len(items)), count)
    captions = [rng.choice(list(scenes.CAPTIONS.values()))(rng, items[k], long) for k in picked]
    return latents[picked].float(), captions


def draw_sigmas(count: int) -> torch.Tensor:
    u = (torch.arange(count) + torch.rand(count)) / count
    spread = 3 * u / (1 + 2 * u)
    visited = sigmas(8)[torch.randint(0, 8, (count,))]
    return torch.where(torch.rand(count) < 0.5, visited, spread.clamp(min=0.02))


def main() -> None:
    args = argparse.ArgumentParser()
    args.add_argument("--seconds", type=float, required=True)
    args.add_argument("--vae", required=True)
    args.add_argument("--tokenizer", required=True)
    args.add_argument("--out", required=True)
    args.add_argument("--start", help="go on from the weights in this folder")
    args.add_argument("--peak-rate", type=float, default=PEAK_RATE)
    args.add_argument("--seed", type=int, default=0)
    args = args.parse_args()
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    torch.set_num_threads(2)
    rng = random.Random(11 + args.seed)

    cache = out / "latents.pt"
    if not cache.exists():
        began = time.time()
        torch.save(make_latents(AutoencoderKL.from_pretrained(args.vae).eval()), cache)
        print(f"latents in {time.time() - began:.0f} s", flush=True)
    store = torch.load(cache, weights_only=False)
    tokenizer = Qwen2Tokenizer.from_pretrained(args.tokenizer)
    if args.start:
        model = ZImageTransformer2DModel.from_pretrained(f"{args.start}/transformer").train()
        encoder = Qwen3Model.from_pretrained(f"{args.start}/text_encoder").train()
    else:
        model, encoder = build_transformer(), build_text_encoder(len(tokenizer))
        prepare(model, encoder)
    run = BatchedTransformer(model, torch.compile(block, dynamic=True))

    named = [*model.named_parameters(), *encoder.named_parameters()]
    matrices = [p for n, p in named if p.ndim == 2 and any(k in n for k in ("attention", "feed_forward", "attn", "mlp")) and "t_embedder" not in n]
    chosen = {id(p) for p in matrices}
    others = [p for _, p in named if id(p) not in chosen]
    optimizers = [Muon(matrices, lr=0.0), torch.optim.AdamW(others, lr=0.0, betas=(0.9, 0.98), weight_decay=0.0)]
    weights = [p for _, p in named]
    averages = [p.detach().clone() for p in weights]

    def save(folder: Path) -> None:
        """Writes the running averages, and goes on with the weights themselves."""
        kept = [p.detach().clone() for p in weights]
        with torch.no_grad():
            torch._foreach_copy_(weights, averages)
            model.save_pretrained(folder / "transformer")
            encoder.save_pretrained(folder / "text_encoder")
            torch._foreach_copy_(weights, kept)

    step, seen, smooth, saved_at = 0, 0, None, 0.0
    began = time.time()
    while (share := (time.time() - began) / args.seconds) < 1:
        rate = args.peak_rate * min(1.0, (step + 1) / 60) * min(1.0, (1 - share) / 0.7)
        for group in (g for o in optimizers for g in o.param_groups):
            group["lr"] = rate
        x, captions = draw_batch(rng, store)
        ids, mask = tokenize(tokenizer, captions)
        sigma = draw_sigmas(len(x))
        noise = torch.randn_like(x)
        s = sigma.view(-1, 1, 1, 1)
        with torch.autocast("cpu", torch.bfloat16):
            velocity = run((1 - s) * x + s * noise, 1 - sigma, embed(encoder, ids), mask)
        # The model predicts data minus noise; the pipeline turns the sign.
        losses = (velocity.float() - (x - noise)).pow(2).mean((1, 2, 3))
        model.zero_grad()
        encoder.zero_grad()
        losses.mean().backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        for optimizer in optimizers:
            optimizer.step()
        step += 1
        seen += len(x)
        if step == 1:
            began = time.time()  # compiling is not training
        with torch.no_grad():
            torch._foreach_lerp_(averages, weights, 1 - min(AVERAGE_DECAY, (step + 1) / (step + 10)))
        loss = losses.mean().item()
        smooth = loss if smooth is None else 0.97 * smooth + 0.03 * loss
        if step % 50 == 0 or step < 4:
            print(f"step {step} {time.time() - began:.0f} s  loss {smooth:.4f}  seen {seen}  {seen / (time.time() - began + 1e-9):.0f} a second", flush=True)
        if time.time() - began > saved_at + 240:
            saved_at = time.time() - began
            save(out)
    save(out)
    print(f"{step} steps, {seen} pictures seen, loss {smooth:.4f}, weights: "
          f"{sum(p.numel() for p in model.parameters())} and {sum(p.numel() for p in encoder.parameters())}")


if __name__ == "__main__":
    main()
