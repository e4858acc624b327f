"""ZImageTransformer2DModel for a whole batch of one picture size and one caption bucket.

The stock forward walks over lists and multiplies complex numbers, which is slow to train on a CPU and cannot be compiled.
This one uses the very same modules and weights; `python forward.py` shows that both give the same numbers.
"""
from collections.abc import Callable

import torch
import torch.nn.functional as F
from diffusers import ZImageTransformer2DModel
from transformers import Qwen2Tokenizer, Qwen3Model

TOKEN_MULTIPLE = 32


def round_up(count: int) -> int:
    return -(-count // TOKEN_MULTIPLE) * TOKEN_MULTIPLE


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """x [batch, tokens, heads, head_dim] with the two halves of a pair side by side; cos, sin [tokens, 1, head_dim / 2]."""
    a, b = x.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2)


def block(layer, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, time: torch.Tensor | None) -> torch.Tensor:
    attention = layer.attention
    h, g = layer.attention_norm1(x), layer.ffn_norm1
    if time is not None:
        parts = layer.adaLN_modulation(time).unsqueeze(1).chunk(4, -1)
        scale_attention, gate_attention, scale_mlp, gate_mlp = 1 + parts[0], parts[1].tanh(), 1 + parts[2], parts[3].tanh()
        h = h * scale_attention
    q, k, v = (to(h).unflatten(-1, (attention.heads, -1)) for to in (attention.to_q, attention.to_k, attention.to_v))
    q, k = (rotate(norm(y), cos, sin).transpose(1, 2) for norm, y in ((attention.norm_q, q), (attention.norm_k, k)))
    h = F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v.transpose(1, 2))
    h = layer.attention_norm2(attention.to_out[0](h.transpose(1, 2).flatten(2)))
    x = x + (h if time is None else gate_attention * h)
    h = g(x) if time is None else g(x) * scale_mlp
    h = layer.ffn_norm2(layer.feed_forward(h))
    return x + (h if time is None else gate_mlp * h)


class BatchedTransformer:
    def __init__(self, model: ZImageTransformer2DModel, run_block: Callable = block):
        self.model, self.block = model, run_block
        tables = model.rope_embedder.precompute_freqs_cis(model.axes_dims, model.axes_lens, model.rope_theta)
        self.tables = [(t.real.contiguous(), t.imag.contiguous()) for t in tables]

    def turns(self, places: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """cos and sin [tokens, 1, head_dim / 2] for places [tokens, 3]."""
        cos, sin = (torch.cat([t[part][places[:, axis]] for axis, t in enumerate(self.tables)], -1) for part in (0, 1))
        return cos.unsqueeze(1), sin.unsqueeze(1)

    def __call__(self, latents: torch.Tensor, time: torch.Tensor, caption: torch.Tensor, caption_mask: torch.Tensor) -> torch.Tensor:
        """latents [batch, 16, height, width], time = 1 - sigma [batch], caption [batch, bucket, features]."""
        model = self.model
        batch, channels, height, width = latents.shape
        rows, columns, bucket = height // 2, width // 2, caption.shape[1]
        count, padded = rows * columns, round_up(rows * columns)
        steps = torch.arange(count)
        image_places = torch.zeros(padded, 3, dtype=torch.long)
        image_places[:count] = torch.stack([torch.full_like(steps, bucket + 1), steps // columns, steps % columns], 1)
        caption_places = torch.zeros(bucket, 3, dtype=torch.long)
        caption_places[:, 0] = torch.arange(bucket) + 1
        image_turns, caption_turns = self.turns(image_places), self.turns(caption_places)

        time = model.t_embedder(time * model.t_scale)
        x = latents.reshape(batch, channels, rows, 2, columns, 2).permute(0, 2, 4, 3, 5, 1).reshape(batch, count, -1)
        x = model.all_x_embedder["2-1"](x)
        if padded > count:
            x = torch.cat([x, model.x_pad_token.to(x.dtype).expand(batch, padded - count, -1)], 1)
        for layer in model.noise_refiner:
            x = self.block(layer, x, *image_turns, time)
        c = torch.where(caption_mask.unsqueeze(-1), model.cap_embedder(caption), model.cap_pad_token)
        for layer in model.context_refiner:
            c = self.block(layer, c, *caption_turns, None)
        x = torch.cat([x, c], 1)
        both = [torch.cat(pair) for pair in zip(image_turns, caption_turns)]
        for layer in model.layers:
            x = self.block(layer, x, *both, time)
        x = model.all_final_layer["2-1"](x[:, :count], c=time)
        return x.reshape(batch, rows, columns, 2, 2, channels).permute(0, 5, 1, 3, 2, 4).reshape(latents.shape)


def tokenize(tokenizer: Qwen2Tokenizer, captions: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and mask, padded to the bucket of the longest caption."""
    texts = [f"<|im_start|>user\n{c}<|im_end|>\n<|im_start|>assistant\n" for c in captions]
    batch = tokenizer(texts, padding=True, pad_to_multiple_of=TOKEN_MULTIPLE, return_tensors="pt")
    return batch.input_ids, batch.attention_mask.bool()


def embed(encoder: Qwen3Model, ids: torch.Tensor) -> torch.Tensor:
    """What the pipeline reads.  Padding is on the right and the encoder is causal, so it needs no mask."""
    return encoder(input_ids=ids, output_hidden_states=True).hidden_states[-2]


def sigmas(steps: int) -> torch.Tensor:
    u = 1 - torch.arange(steps, dtype=torch.float64) / steps
    return torch.cat([3 * u / (1 + 2 * u), torch.zeros(1, dtype=torch.float64)]).float()


@torch.no_grad()
def sample(transformer: BatchedTransformer, caption: torch.Tensor, mask: torch.Tensor, noise: torch.Tensor, steps: int = 8) -> torch.Tensor:
    x, schedule = noise, sigmas(steps)
    for now, then in zip(schedule[:-1], schedule[1:]):
        x = x - (then - now) * transformer(x, (1 - now).expand(len(x)), caption, mask)
    return x


def main() -> None:
    import transformer as recipe

    torch.manual_seed(0)
    model = recipe.build_transformer().eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.02)
        lengths = [9, 20, 32]
        latents, time, caption = torch.randn(3, 16, 8, 12), torch.rand(3), torch.randn(3, 32, model.config.cap_feat_dim)
        mask = torch.arange(32) < torch.tensor(lengths).unsqueeze(1)
        stock = model(list(latents.unsqueeze(2)), time, [c[:n] for c, n in zip(caption, lengths)], return_dict=False)[0]
        ours = BatchedTransformer(model)(latents, time, caption, mask)
    print("largest difference", (torch.stack(list(stock)).squeeze(2) - ours).abs().max().item())


if __name__ == "__main__":
    main()
