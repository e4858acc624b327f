"""Trains the transformer and the text encoder together, as a rectified flow on the latents of the autoencoder.

python transformer.py --steps 2200 --vae DIR --tokenizer DIR --out DIR [--start DIR]

Half of the noise levels are exactly the eight that inference visits, so no distillation is needed for eight steps.
Two processes of one thread each work on half a batch, and add up their gradients once a step: on a machine that does
other work as well, two threads of one process would wait for one another in every single operation.
"""
import argparse
import os
import random
import time
from pathlib import Path

import torch
import torch.distributed as dist
from diffusers import AutoencoderKL, ZImageTransformer2DModel
from transformers import Qwen2Tokenizer, Qwen3Config, Qwen3Model

import scenes
from forward import BatchedTransformer, block, embed, sigmas, tokenize
from muon import Muon
from vae import pixels

PEAK_RATE = 2.5e-3
BATCH = 32  # of each process
PROCESSES = 2
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


def draw_batch(plan: random.Random, rng: random.Random, store: dict) -> tuple[torch.Tensor, list[str]]:
    """The plan is the same in both processes, so that neither waits for the other's larger pictures."""
    native = (scenes.NATIVE_SIDE_PX, scenes.NATIVE_SIDE_PX)
    long = plan.random() < LONG_CAPTION_SHARE
    size = native if plan.random() > OTHER_SIZE_SHARE else plan.choice(OTHER_SIZES_PX)
    count = min(BATCH, max(6, BATCH * native[0] * native[1] // (size[0] * size[1])))
    latents, items = store[size]
    picked = rng.sample(range(len(items)), count)
    captions = [rng.choice(list(scenes.CAPTIONS.values()))(rng, items[k], long) for k in picked]
    return latents[picked].float(), captions


def draw_sigmas(count: int) -> torch.Tensor:
    u = (torch.arange(count) + torch.rand(count)) / count
    spread = 3 * u / (1 + 2 * u)
    visited = sigmas(8)[torch.randint(0, 8, (count,))]
    return torch.where(torch.rand(count) < 0.5, visited, spread.clamp(min=0.02))


def train(rank: int, args: argparse.Namespace) -> None:
    out = Path(args.out)
    dist.init_process_group("gloo", init_method=f"file://{(out / 'meeting').resolve()}", rank=rank, world_size=PROCESSES)
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    plan, rng = random.Random(args.seed), random.Random(100 * args.seed + rank)
    store = torch.load(out / "latents.pt", weights_only=False)
    tokenizer = Qwen2Tokenizer.from_pretrained(args.tokenizer)
    if args.start:
        model = ZImageTransformer2DModel.from_pretrained(f"{args.start}/transformer").train()
        encoder = Qwen3Model.from_pretrained(f"{args.start}/text_encoder").train()
    else:
        model, encoder = build_transformer(), build_text_encoder(len(tokenizer))
        prepare(model, encoder)
    torch.manual_seed(1000 * args.seed + rank)
    run = BatchedTransformer(model, torch.compile(block, dynamic=True))

    named = [*model.named_parameters(), *encoder.named_parameters()]
    # The encoder's last layer and its final norm are not on the way to the picture.
    idle = ("norm.weight", f"layers.{encoder.config.num_hidden_layers - 1}.")
    named = [(n, p) for n, p in named if not (any(p is q for q in encoder.parameters()) and n.startswith(idle))]
    kinds = ("attention.to_", "feed_forward", "adaLN_modulation", "self_attn", "layers.0.mlp", "layers.1.mlp")
    matrices = [p for n, p in named if p.ndim == 2 and any(k in n for k in kinds)]
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

    seen, smooth, saved_at = 0, None, 0.0
    began = time.time()
    for step in range(1, args.steps + 1):
        share = step / args.steps
        rate = args.peak_rate * min(1.0, step / 60) * min(1.0, (1 - share) / 0.7)
        for group in (g for o in optimizers for g in o.param_groups):
            group["lr"] = rate
        x, captions = draw_batch(plan, rng, store)
        ids, mask = tokenize(tokenizer, captions)
        sigma = draw_sigmas(len(x))
        noise = torch.randn_like(x)
        s = sigma.view(-1, 1, 1, 1)
        with torch.autocast("cpu", torch.bfloat16):
            velocity = run((1 - s) * x + s * noise, 1 - sigma, embed(encoder, ids), mask)
        # The model predicts data minus noise; the pipeline turns the sign.
        loss = (velocity.float() - (x - noise)).pow(2).mean()
        model.zero_grad()
        encoder.zero_grad()
        loss.backward()
        if step == 1:
            began = time.time()  # compiling is not training
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in weights]
        message = torch.cat([loss.detach().view(1), *(g.flatten() for g in gradients)])
        dist.all_reduce(message)
        message /= PROCESSES
        mean_loss = message[0].item()
        for p, g in zip(weights, message[1:].split([p.numel() for p in weights])):
            p.grad = g.view_as(p)
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        for optimizer in optimizers:
            optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(averages, weights, 1 - min(AVERAGE_DECAY, (step + 1) / (step + 10)))
        seen += PROCESSES * len(x)
        smooth = mean_loss if smooth is None else 0.97 * smooth + 0.03 * mean_loss
        if rank == 0:
            seconds = time.time() - began
            if step % 50 == 0 or step in (2, 5, 10):
                print(f"step {step} {seconds:.0f} s  loss {smooth:.4f}  seen {seen}  {seen / seconds:.0f} a second", flush=True)
            if seconds > saved_at + 180:
                saved_at = seconds
                save(out)
    if rank == 0:
        save(out)
        print(f"{step} steps, {seen} pictures seen, loss {smooth:.4f}, weights: "
              f"{sum(p.numel() for p in model.parameters())} and {sum(p.numel() for p in encoder.parameters())}")
    dist.destroy_process_group()


def main() -> None:
    args = argparse.ArgumentParser()
    args.add_argument("--steps", type=int, required=True)
    args.add_argument("--vae", required=True)
    args.add_argument("--tokenizer", required=True)
    args.add_argument("--out", required=True)
    args.add_argument("--start", help="go on from the weights in this folder")
    args.add_argument("--peak-rate", type=float, default=PEAK_RATE)
    args.add_argument("--seed", type=int, default=0)
    args = args.parse_args()
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    if not (out / "latents.pt").exists():
        began = time.time()
        torch.save(make_latents(AutoencoderKL.from_pretrained(args.vae).eval()), out / "latents.pt")
        print(f"latents in {time.time() - began:.0f} s", flush=True)
    (out / "meeting").unlink(missing_ok=True)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.multiprocessing.spawn(train, (args,), PROCESSES)


if __name__ == "__main__":
    main()
