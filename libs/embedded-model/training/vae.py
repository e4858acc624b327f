"""Trains the picture autoencoder (diffusers' AutoencoderKL, 8x smaller each way, 16 latent channels).

python vae.py --seconds 780 --out DIR
python vae.py --seconds 180 --peak-rate 1e-3 --pastel-share 0.5 --start DIR --out DIR
Edges are what the shapes are recognised by, and they are few pixels, so the loss weighs them up.
"""
import argparse
import random
import time

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

import scenes
from muon import Muon

BLOCK_CHANNELS = [16, 32, 64, 64]
NORM_GROUPS = 8
PEAK_RATE = 2e-3
KL_WEIGHT = 2e-4
EDGE_WEIGHT = 3.0


def build() -> AutoencoderKL:
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=["DownEncoderBlock2D"] * len(BLOCK_CHANNELS),
        up_block_types=["UpDecoderBlock2D"] * len(BLOCK_CHANNELS),
        block_out_channels=BLOCK_CHANNELS,
        layers_per_block=1,
        latent_channels=16,
        norm_num_groups=NORM_GROUPS,
        sample_size=scenes.NATIVE_SIDE_PX,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=True,
        scaling_factor=1.0,
        shift_factor=0.0,
    )


def pixels(images: list[np.ndarray]) -> torch.Tensor:
    batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float()
    return (batch / 127.5 - 1).contiguous()


def crops(rng: random.Random, count: int, side_px: int, pastel_share: float = 0.0) -> torch.Tensor:
    """Square cuts of scenes of several sizes, most of them with an edge in them, some of them in paler colours."""
    images = []
    while len(images) < count:
        full_px = rng.choice([64, 96, 128, 128, 128, 160]) if side_px < 128 else 128
        full_px = max(full_px, side_px)
        strength = rng.random() if rng.random() < pastel_share else 0.0
        image = scenes.render(scenes.draw_scene(rng), full_px, full_px, strength)
        for _ in range(4):
            top, left = rng.randint(0, full_px - side_px), rng.randint(0, full_px - side_px)
            cut = image[top : top + side_px, left : left + side_px]
            if cut.min((0, 1)).tolist() != cut.max((0, 1)).tolist():
                break
        images.append(cut)
    return pixels(images)


def edge_weights(x: torch.Tensor) -> torch.Tensor:
    """1 on flat ground, more within two pixels of an edge."""
    spread = F.max_pool2d(x, 5, 1, 2) + F.max_pool2d(-x, 5, 1, 2)
    return 1 + EDGE_WEIGHT * (spread.amax(1, keepdim=True) > 0.1).float()


def decibels(vae: AutoencoderKL, count: int = 64, seed: int = 3) -> float:
    rng = random.Random(seed)
    x = crops(rng, count, scenes.NATIVE_SIDE_PX)
    with torch.no_grad():
        y = torch.cat([vae.decode(vae.encode(part).latent_dist.mean).sample for part in x.split(16)]).clamp(-1, 1)
    return (10 * torch.log10(4 / (y - x).pow(2).mean((1, 2, 3)))).mean().item()


def main() -> None:
    args = argparse.ArgumentParser()
    args.add_argument("--seconds", type=float, required=True)
    args.add_argument("--out", required=True)
    args.add_argument("--start", help="go on from this autoencoder")
    args.add_argument("--peak-rate", type=float, default=PEAK_RATE)
    args.add_argument("--pastel-share", type=float, default=0.0, help="so that a LoRA can leave the palette")
    args = args.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(2)
    rng = random.Random(args.start or "first")
    vae = (AutoencoderKL.from_pretrained(args.start) if args.start else build()).train()
    matrices = [p for n, p in vae.named_parameters() if p.ndim > 1 and "conv_in" not in n and "decoder.conv_out" not in n]
    others = [p for p in vae.parameters() if all(p is not m for m in matrices)]
    optimizers = [Muon(matrices, lr=args.peak_rate), torch.optim.AdamW(others, lr=args.peak_rate, betas=(0.9, 0.98), weight_decay=0.0)]
    began, step = time.time(), 0
    while (share := (time.time() - began) / args.seconds) < 1:
        # Whole pictures come last: they are slow, and the network only has to learn their statistics.
        side_px, count = (64, 12) if share < 0.75 else (128, 4)
        warm_up = min(1.0, (step + 1) / 40)
        for group in (g for o in optimizers for g in o.param_groups):
            group["lr"] = args.peak_rate * warm_up * (1 - share)
        x = crops(rng, count, side_px, args.pastel_share)
        low_precision = share < 0.85
        with torch.autocast("cpu", torch.bfloat16, enabled=low_precision):
            mean, log_variance = vae.encoder(x).float().chunk(2, 1)
        log_variance = log_variance.clamp(-12, 4)
        z = mean + torch.randn_like(mean) * torch.exp(0.5 * log_variance)
        with torch.autocast("cpu", torch.bfloat16, enabled=low_precision):
            y = vae.decoder(z).float()
        error = y - x
        weights = edge_weights(x)
        picture_loss = ((error.abs() + error.pow(2)) * weights).sum() / (3 * weights.sum())
        kl = 0.5 * (mean.pow(2) + log_variance.exp() - 1 - log_variance).mean()
        loss = picture_loss + KL_WEIGHT * kl
        vae.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        step += 1
        if step % 100 == 0 or step < 4:
            psnr = (10 * torch.log10(4 / error.detach().pow(2).mean((1, 2, 3)))).mean().item()
            noise = torch.exp(0.5 * log_variance.detach()).mean().item()
            print(f"step {step} {time.time() - began:.0f} s  loss {picture_loss.item():.4f}  psnr {psnr:.2f} dB  "
                  f"kl {kl.item():.3f}  latent std {mean.std().item():.2f}  noise {noise:.3f}", flush=True)
    vae.eval()
    rng = random.Random(2)
    with torch.no_grad():
        latents = torch.cat([vae.encode(crops(rng, 16, scenes.NATIVE_SIDE_PX)).latent_dist.mean for _ in range(8)])
    # The pipeline undoes these two, so that the transformer sees latents with mean 0 and spread 1.
    vae.register_to_config(scaling_factor=1 / latents.std().item(), shift_factor=latents.mean().item())
    vae.save_pretrained(args.out)
    print(f"{step} steps, {sum(p.numel() for p in vae.parameters())} weights, {decibels(vae):.2f} dB on whole pictures, "
          f"spread of channels {latents.std((0, 2, 3)).numpy().round(2)}")


if __name__ == "__main__":
    main()
