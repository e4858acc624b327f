"""Writes what a model folder has beside its diffusers parts: three ONNX graphs without weights, and mesh.json.

python export.py MODEL_DIR

Every weight is external data that points into the folder's own safetensors files, under the name and in the layout that
it has there.  So weights are stored once, a LoRA finds its target by name, and the reader decides how bytes get in.
The graphs are put together by hand, op by op: an exporter would rename, transpose and copy the weights.
"""
import hashlib
import json
import math
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

OPSET = 18
IR_VERSION = 10
REVISION = "2026-11-1"
MAX_SIDE_PX = 256
MAX_PROMPT_TOKENS = 64
LORA_DESCRIPTIONS = {"pastel": "Washes the colours out towards pastel; the strength is felt evenly from 0 to 1."}
SAFETENSORS_TYPES = {"F32": TensorProto.FLOAT}


class Graph:
    """Collects nodes; values are named by strings."""

    def __init__(self, name: str, weights_path: Path, location: str):
        self.name, self.location = name, location
        self.nodes, self.initializers, self.inputs, self.outputs = [], {}, [], []
        with weights_path.open("rb") as file:
            (header_bytes,) = struct.unpack("<Q", file.read(8))
            self.header = json.loads(file.read(header_bytes))
        self.data_start = 8 + header_bytes
        self.count = 0

    def input(self, name: str, kind: int, shape: list) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def output(self, value: str, name: str, shape: list) -> None:
        self.nodes.append(helper.make_node("Identity", [value], [name], name=f"out_{name}"))
        self.outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))

    def op(self, kind: str, *inputs: str, outputs: int = 1, **attributes):
        self.count += 1
        names = [f"{kind.lower()}_{self.count}" + (f"_{k}" if outputs > 1 else "") for k in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, name=f"{kind}_{self.count}", **attributes))
        return names[0] if outputs == 1 else names

    def constant(self, value, kind=np.float32) -> str:
        array = np.asarray(value, kind)
        name = f"constant_{array.dtype}_{'x'.join(map(str, array.shape))}_{zlib.crc32(array.tobytes()):08x}"
        self.initializers.setdefault(name, numpy_helper.from_array(array, name))
        return name

    def integers(self, *values: int) -> str:
        return self.constant(list(values), np.int64)

    def weight(self, name: str) -> str:
        if name not in self.initializers:
            entry = self.header[name]
            start, end = entry["data_offsets"]
            tensor = TensorProto(name=name, data_type=SAFETENSORS_TYPES[entry["dtype"]], dims=entry["shape"])
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (("location", self.location), ("offset", self.data_start + start), ("length", end - start)):
                tensor.external_data.add(key=key, value=str(value))
            self.initializers[name] = tensor
        return name

    def has(self, name: str) -> bool:
        return name in self.header

    def linear(self, x: str, name: str) -> str:
        y = self.op("MatMul", x, self.op("Transpose", self.weight(f"{name}.weight"), perm=[1, 0]))
        return self.op("Add", y, self.weight(f"{name}.bias")) if self.has(f"{name}.bias") else y

    def silu(self, x: str) -> str:
        return self.op("Mul", x, self.op("Sigmoid", x))

    def rms_norm(self, x: str, name: str, epsilon: float) -> str:
        square = self.op("Pow", x, self.constant(2.0))
        mean = self.op("ReduceMean", square, self.integers(-1), keepdims=1)
        root = self.op("Sqrt", self.op("Add", mean, self.constant(epsilon)))
        return self.op("Mul", self.op("Div", x, root), self.weight(f"{name}.weight"))

    def attention(self, q: str, k: str, v: str, head_dim: int, mask: str | None = None) -> str:
        """q, k, v [tokens, heads, head_dim] -> [1, tokens, heads * head_dim]."""
        q = self.op("Transpose", self.op("Mul", q, self.constant(1 / math.sqrt(head_dim))), perm=[1, 0, 2])
        scores = self.op("MatMul", q, self.op("Transpose", k, perm=[1, 2, 0]))
        if mask:
            scores = self.op("Add", scores, mask)
        mixed = self.op("MatMul", self.op("Softmax", scores, axis=-1), self.op("Transpose", v, perm=[1, 0, 2]))
        joined = self.op("Transpose", mixed, perm=[1, 0, 2])
        return self.op("Unsqueeze", self.op("Reshape", joined, self.integers(0, -1)), self.integers(0))

    def split_heads(self, x: str, heads: int, head_dim: int) -> str:
        return self.op("Reshape", x, self.integers(-1, heads, head_dim))

    def save(self, path: Path) -> None:
        graph = helper.make_graph(self.nodes, self.name, self.inputs, self.outputs, list(self.initializers.values()))
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="diffusion-mesh")
        path.write_bytes(model.SerializeToString(deterministic=True))


def text_encoder(folder: Path) -> Graph:
    config = json.loads((folder / "text_encoder/config.json").read_text())
    heads, groups, head_dim = config["num_attention_heads"], config["num_key_value_heads"], config["head_dim"]
    epsilon = config["rms_norm_eps"]
    theta = config.get("rope_parameters", config)["rope_theta"]
    g = Graph("text_encoder", folder / "text_encoder/model.safetensors", "text_encoder.safetensors")
    ids = g.input("input_ids", TensorProto.INT64, [1, "S"])
    x = g.op("Gather", g.weight("embed_tokens.weight"), ids)
    length = g.op("Gather", g.op("Shape", ids), g.constant(1, np.int64), axis=0)
    places = g.op("Range", g.constant(0, np.int64), length, g.constant(1, np.int64))
    column, row = g.op("Unsqueeze", places, g.integers(1)), g.op("Unsqueeze", places, g.integers(0))
    mask = g.op("Where", g.op("GreaterOrEqual", column, row), g.constant(0.0), g.constant(-1e9))
    speeds = 1.0 / theta ** (np.arange(0, head_dim, 2, dtype=np.float32) / head_dim)
    angles = g.op("Mul", g.op("Unsqueeze", g.op("Cast", places, to=TensorProto.FLOAT), g.integers(1, 2)), g.constant(speeds[None, None]))
    cos, sin = g.op("Cos", angles), g.op("Sin", angles)

    def rotate(h: str) -> str:
        a, b = g.op("Split", h, axis=-1, num_outputs=2, outputs=2)
        first = g.op("Sub", g.op("Mul", a, cos), g.op("Mul", b, sin))
        second = g.op("Add", g.op("Mul", b, cos), g.op("Mul", a, sin))
        return g.op("Concat", first, second, axis=-1)

    def repeat(h: str) -> str:
        """Every key and value head serves heads / groups query heads."""
        wide = g.op("Tile", g.op("Unsqueeze", h, g.integers(2)), g.integers(1, 1, heads // groups, 1))
        return g.op("Reshape", wide, g.integers(-1, heads, head_dim))

    # The pipeline reads hidden_states[-2]: the output of the last layer but one, before the final norm.
    for k in range(config["num_hidden_layers"] - 1):
        at = f"layers.{k}"
        h = g.rms_norm(x, f"{at}.input_layernorm", epsilon)
        q = g.split_heads(g.linear(h, f"{at}.self_attn.q_proj"), heads, head_dim)
        key = g.split_heads(g.linear(h, f"{at}.self_attn.k_proj"), groups, head_dim)
        v = g.split_heads(g.linear(h, f"{at}.self_attn.v_proj"), groups, head_dim)
        q = rotate(g.rms_norm(q, f"{at}.self_attn.q_norm", epsilon))
        key = rotate(g.rms_norm(key, f"{at}.self_attn.k_norm", epsilon))
        h = g.attention(q, repeat(key), repeat(v), head_dim, mask)
        x = g.op("Add", x, g.linear(h, f"{at}.self_attn.o_proj"))
        h = g.rms_norm(x, f"{at}.post_attention_layernorm", epsilon)
        h = g.op("Mul", g.silu(g.linear(h, f"{at}.mlp.gate_proj")), g.linear(h, f"{at}.mlp.up_proj"))
        x = g.op("Add", x, g.linear(h, f"{at}.mlp.down_proj"))
    g.output(x, "prompt_embeds", [1, "S", config["hidden_size"]])
    return g


def transformer(folder: Path) -> Graph:
    config = json.loads((folder / "transformer/config.json").read_text())
    heads, epsilon = config["n_heads"], config["norm_eps"]
    head_dim = config["dim"] // heads
    g = Graph("transformer", folder / "transformer/diffusion_pytorch_model.safetensors", "transformer.safetensors")
    token_size = config["in_channels"] * 4
    image = g.input("image_tokens", TensorProto.FLOAT, [1, "N", token_size])
    image_mask = g.input("image_mask", TensorProto.BOOL, [1, "N"])
    image_turn = [g.input(f"image_{f}", TensorProto.FLOAT, ["N", head_dim // 2]) for f in ("cos", "sin")]
    timestep = g.input("timestep", TensorProto.FLOAT, [1])
    caption = g.input("caption_features", TensorProto.FLOAT, [1, "S", config["cap_feat_dim"]])
    caption_mask = g.input("caption_mask", TensorProto.BOOL, [1, "S"])
    caption_turn = [g.input(f"caption_{f}", TensorProto.FLOAT, ["S", head_dim // 2]) for f in ("cos", "sin")]

    half = 128
    speeds = np.exp(-math.log(10000) * np.arange(half, dtype=np.float32) / np.float32(half)).astype(np.float32)
    angles = g.op("Mul", g.op("Unsqueeze", g.op("Mul", timestep, g.constant(config["t_scale"])), g.integers(1)), g.constant(speeds[None]))
    time = g.op("Concat", g.op("Cos", angles), g.op("Sin", angles), axis=-1)
    time = g.linear(g.silu(g.linear(time, "t_embedder.mlp.0")), "t_embedder.mlp.2")

    def rotate(h: str, turn: list[str]) -> str:
        """Pairs lie side by side.  The result keeps all first halves before all second ones: q and k are then permuted
        alike, which their product does not see."""
        cos, sin = (g.op("Unsqueeze", t, g.integers(1)) for t in turn)
        a, b = g.op("Split", g.op("Reshape", h, g.integers(0, 0, -1, 2)), axis=-1, num_outputs=2, outputs=2)
        a, b = (g.op("Squeeze", part, g.integers(-1)) for part in (a, b))
        first = g.op("Sub", g.op("Mul", a, cos), g.op("Mul", b, sin))
        second = g.op("Add", g.op("Mul", a, sin), g.op("Mul", b, cos))
        return g.op("Concat", first, second, axis=-1)

    def block(x: str, at: str, turn: list[str], modulated: bool) -> str:
        if modulated:
            parts = g.op("Split", g.linear(time, f"{at}.adaLN_modulation.0"), axis=-1, num_outputs=4, outputs=4)
            scale_attention, scale_mlp = (g.op("Add", parts[k], g.constant(1.0)) for k in (0, 2))
            gate_attention, gate_mlp = (g.op("Tanh", parts[k]) for k in (1, 3))
        h = g.rms_norm(x, f"{at}.attention_norm1", epsilon)
        if modulated:
            h = g.op("Mul", h, scale_attention)
        q, k, v = (g.split_heads(g.linear(h, f"{at}.attention.to_{n}"), heads, head_dim) for n in "qkv")
        # Attention norms keep diffusers' own epsilon, whatever the config says.
        q = rotate(g.rms_norm(q, f"{at}.attention.norm_q", 1e-5), turn)
        k = rotate(g.rms_norm(k, f"{at}.attention.norm_k", 1e-5), turn)
        h = g.linear(g.attention(q, k, v, head_dim), f"{at}.attention.to_out.0")
        h = g.rms_norm(h, f"{at}.attention_norm2", epsilon)
        x = g.op("Add", x, g.op("Mul", gate_attention, h) if modulated else h)
        h = g.rms_norm(x, f"{at}.ffn_norm1", epsilon)
        if modulated:
            h = g.op("Mul", h, scale_mlp)
        h = g.op("Mul", g.silu(g.linear(h, f"{at}.feed_forward.w1")), g.linear(h, f"{at}.feed_forward.w3"))
        h = g.rms_norm(g.linear(h, f"{at}.feed_forward.w2"), f"{at}.ffn_norm2", epsilon)
        return g.op("Add", x, g.op("Mul", gate_mlp, h) if modulated else h)

    def pad(x: str, mask: str, token: str) -> str:
        return g.op("Where", g.op("Unsqueeze", mask, g.integers(-1)), x, g.weight(token))

    x = pad(g.linear(image, "all_x_embedder.2-1"), image_mask, "x_pad_token")
    for k in range(config["n_refiner_layers"]):
        x = block(x, f"noise_refiner.{k}", image_turn, True)
    c = g.linear(g.rms_norm(caption, "cap_embedder.0", epsilon), "cap_embedder.1")
    c = pad(c, caption_mask, "cap_pad_token")
    for k in range(config["n_refiner_layers"]):
        c = block(c, f"context_refiner.{k}", caption_turn, False)
    x = g.op("Concat", x, c, axis=1)
    turn = [g.op("Concat", i, t, axis=0) for i, t in zip(image_turn, caption_turn)]
    for k in range(config["n_layers"]):
        x = block(x, f"layers.{k}", turn, True)
    image_length = g.op("Gather", g.op("Shape", image), g.integers(1), axis=0)
    x = g.op("Slice", x, g.integers(0), image_length, g.integers(1))
    width = config["dim"]
    ones, zeros = g.constant(np.ones(width)), g.constant(np.zeros(width))
    x = g.op("LayerNormalization", x, ones, zeros, axis=-1, epsilon=1e-6)
    scale = g.linear(g.silu(time), "all_final_layer.2-1.adaLN_modulation.1")
    x = g.linear(g.op("Mul", x, g.op("Add", scale, g.constant(1.0))), "all_final_layer.2-1.linear")
    g.output(x, "velocity_tokens", [1, "N", token_size])
    return g


def vae_decoder(folder: Path) -> Graph:
    config = json.loads((folder / "vae/config.json").read_text())
    groups, channels = config["norm_num_groups"], config["block_out_channels"]
    g = Graph("vae_decoder", folder / "vae/diffusion_pytorch_model.safetensors", "vae.safetensors")
    x = g.input("latents", TensorProto.FLOAT, [1, config["latent_channels"], "h", "w"])

    def convolution(x: str, name: str) -> str:
        side = g.header[f"{name}.weight"]["shape"][-1]
        return g.op("Conv", x, g.weight(f"{name}.weight"), g.weight(f"{name}.bias"), kernel_shape=[side, side], pads=[side // 2] * 4)

    def group_norm(x: str, name: str) -> str:
        count = g.header[f"{name}.weight"]["shape"][0]
        flat = g.op("Reshape", x, g.integers(0, groups, -1))
        ones, zeros = g.constant(np.ones(groups)), g.constant(np.zeros(groups))
        flat = g.op("InstanceNormalization", flat, ones, zeros, epsilon=1e-6)
        x = g.op("Reshape", flat, g.op("Shape", x))
        scale, shift = (g.op("Reshape", g.weight(f"{name}.{p}"), g.integers(1, count, 1, 1)) for p in ("weight", "bias"))
        return g.op("Add", g.op("Mul", x, scale), shift)

    def resnet(x: str, at: str) -> str:
        h = convolution(g.silu(group_norm(x, f"{at}.norm1")), f"{at}.conv1")
        h = convolution(g.silu(group_norm(h, f"{at}.norm2")), f"{at}.conv2")
        if g.has(f"{at}.conv_shortcut.weight"):
            x = convolution(x, f"{at}.conv_shortcut")
        return g.op("Add", x, h)

    def attention(x: str, at: str, width: int) -> str:
        shape = g.op("Shape", x)
        flat = g.op("Reshape", group_norm(x, f"{at}.group_norm"), g.integers(1, width, -1))
        tokens = g.op("Transpose", flat, perm=[0, 2, 1])
        q, k, v = (g.split_heads(g.linear(tokens, f"{at}.to_{n}"), 1, width) for n in "qkv")
        h = g.linear(g.attention(q, k, v, width), f"{at}.to_out.0")
        return g.op("Add", x, g.op("Reshape", g.op("Transpose", h, perm=[0, 2, 1]), shape))

    x = convolution(x, "decoder.conv_in")
    x = resnet(x, "decoder.mid_block.resnets.0")
    if config["mid_block_add_attention"]:
        x = attention(x, "decoder.mid_block.attentions.0", channels[-1])
    x = resnet(x, "decoder.mid_block.resnets.1")
    for k in range(len(channels)):
        for r in range(config["layers_per_block"] + 1):
            x = resnet(x, f"decoder.up_blocks.{k}.resnets.{r}")
        if k < len(channels) - 1:
            scales = g.constant([1, 1, 2, 2])
            x = g.op("Resize", x, "", scales, mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor")
            x = convolution(x, f"decoder.up_blocks.{k}.upsamplers.0.conv")
    x = convolution(g.silu(group_norm(x, "decoder.conv_norm_out")), "decoder.conv_out")
    g.output(x, "image", [1, 3, "8h", "8w"])
    return g


def mesh_manifest(folder: Path) -> dict:
    """What the mesh may offer of this model, with a digest of every other file of the folder."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "mesh.json")
    loras = [p for p in files if p.parent.name == "loras"]
    return {
        "name": "z-image-tiny",
        "revision": REVISION,
        "family": "z-image",
        "languages": ["en", "zh"],
        "defaults": {"width": 128, "height": 128, "steps": 8, "guidanceScale": 0},
        "limits": {
            "sizeMultiple": 16, "minWidth": 64, "maxWidth": MAX_SIDE_PX, "minHeight": 64, "maxHeight": MAX_SIDE_PX,
            "minSteps": 1, "maxSteps": 50, "minGuidanceScale": 0, "maxGuidanceScale": 0, "maxImageCount": 4,
            "maxPromptTokens": MAX_PROMPT_TOKENS, "maxLoras": 4, "minLoraStrength": 0, "maxLoraStrength": 2,
        },
        "negativePrompt": False,
        "loras": [{"name": p.stem, "file": f"loras/{p.name}", "description": LORA_DESCRIPTIONS[p.stem]} for p in loras],
        "digests": {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files},
    }


def forget_origins(folder: Path) -> None:
    """Saving a loaded part writes down the folder it came from, which means nothing elsewhere."""
    for path in folder.glob("*/config.json"):
        config = json.loads(path.read_text())
        if config.pop("_name_or_path", None) is not None:
            path.write_text(json.dumps(config, indent=2) + "\n")


def main() -> None:
    folder = Path(sys.argv[1])
    forget_origins(folder)
    (folder / "onnx").mkdir(exist_ok=True)
    for build in (text_encoder, transformer, vae_decoder):
        path = folder / "onnx" / f"{build.__name__}.onnx"
        build(folder).save(path)
        print(path.name, path.stat().st_size, "bytes")
    (folder / "mesh.json").write_text(json.dumps(mesh_manifest(folder), indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
