"""What is no good is refused with a typed error that names it, and the next request is drawn."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import MODEL_DIR, draw, drawing, noise, quiet
from safetensors.torch import load_file, save_file

from engine_diffusers.adapters import Adapters
from engine_diffusers.config import ConfigError, Options, parse_config
from engine_diffusers.contract import message
from engine_diffusers.drawing import Model
from engine_diffusers.errors import Code, StatusError
from engine_diffusers.loading import load
from engine_diffusers.order import LoraUse, order_of

TRANSFORMER = "transformer/diffusion_pytorch_model.safetensors"
UNVERIFIED = Options(verify=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    copy = tmp_path / "model"
    shutil.copytree(MODEL_DIR, copy)
    return copy


def edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def cut(folder: Path) -> None:
    weights = folder / TRANSFORMER
    weights.write_bytes(weights.read_bytes()[:-1000])


def drop_weight(folder: Path) -> None:
    tensors = load_file(folder / TRANSFORMER)
    del tensors["layers.0.attention.to_q.weight"]
    save_file(tensors, folder / TRANSFORMER)


def miss_shard(folder: Path) -> None:
    (folder / TRANSFORMER).unlink()
    index = {"weight_map": {"a": "part-1.safetensors", "b": "part-2.safetensors"}}
    (folder / "transformer/diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda f: (f / "mesh.json").unlink(), "mesh.json"),
        (lambda f: (f / "mesh.json").write_text("{"), "expected JSON"),
        (lambda f: edit_json(f / "mesh.json", limits={}, name=""), "limits.sizeMultiple"),
        (lambda f: (f / "vae/config.json").unlink(), "vae/config.json"),
        (lambda f: (f / TRANSFORMER).unlink(), "transformer/*.safetensors"),
        (miss_shard, "transformer/part-2.safetensors"),
        (cut, "is cut"),
        (drop_weight, "layers.0.attention.to_q.weight"),
        (lambda f: (f / TRANSFORMER).write_bytes(b"no weights"), "diffusion_pytorch_model.safetensors"),
        (lambda f: edit_json(f / "transformer/config.json", dim=64), "transformer"),
        (lambda f: edit_json(f / "model_index.json", _class_name="NoSuchPipeline"), "NoSuchPipeline"),
        (lambda f: edit_json(f / "model_index.json", transformer=["diffusers", "NoSuchModel"]), "NoSuchModel"),
        (lambda f: edit_json(f / "vae/config.json", latent_channels=4), "vae"),
    ],
)
def test_a_folder_that_is_no_good(folder: Path, spoil: Callable[[Path], object], named: str) -> None:
    spoil(folder)
    with pytest.raises(StatusError) as caught:
        load(str(folder), UNVERIFIED, quiet)
    assert (caught.value.code, caught.value.reason) == (Code.FAILED_PRECONDITION, "MODEL_UNUSABLE")
    assert named in caught.value.text


def test_an_altered_file(folder: Path) -> None:
    weights = folder / TRANSFORMER
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(StatusError, match="expected SHA-256"):
        load(str(folder), Options(), quiet)


def test_an_attention_kernel_that_is_none_or_does_not_do_here(model: Model) -> None:
    for name in ("nonsense", "_native_cudnn"):  # the second is one, and not for a CPU
        with pytest.raises(StatusError, match=f"attention {name}") as caught:
            load(str(MODEL_DIR), Options(attention=name), quiet)
        assert caught.value.reason == "MODEL_UNUSABLE"
        draw(model, drawing(steps=1))  # other models of the process are as before


def test_every_bad_setting_is_named_at_once() -> None:
    env = {
        "DMESH_ENGINE_SOCKET": "relative.sock",
        "DMESH_ENGINE_DTYPE": "fp16",
        "DMESH_ENGINE_THREADS": "0",
        "DMESH_ENGINE_COMPILE": "100x64",
    }
    with pytest.raises(ConfigError) as caught:
        parse_config(env)
    assert [line.split(":")[0] for line in sorted(str(caught.value).splitlines())] == sorted(env)
    assert parse_config({}).options == Options()


def lora_file(path: Path, keys: dict[str, tuple[int, ...]]) -> Path:
    save_file({key: torch.full(shape, 0.01) for key, shape in keys.items()}, path)
    return path


GOOD = {
    "transformer.layers.0.attention.to_q.lora_A.weight": (4, 144),
    "transformer.layers.0.attention.to_q.lora_B.weight": (144, 4),
}


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"some.other.model.weight": (4, 4)}, "none of its 1 tensors"),
        ({"unet.down.0.lora_A.weight": (4, 8), "unet.down.0.lora_B.weight": (8, 4)}, "none of its 2 tensors"),
        ({**GOOD, "transformer.layers.99.attention.to_q.lora_A.weight": (4, 144)}, "layers.99"),
        ({key: (4, 96) if "lora_A" in key else (96, 4) for key in GOOD}, "its pair 96 × 4 and 4 × 96"),
        ({"transformer.layers.0.attention.to_q.lora_A.weight": (4, 144)}, "one half of its pair"),
        ({**GOOD, "transformer.layers.0.attention.to_q.alpha": (2,)}, "an alpha of 2 numbers"),
    ],
)
def test_a_lora_that_does_not_fit(model: Model, tmp_path: Path, keys: dict[str, tuple[int, ...]], why: str) -> None:
    path = lora_file(tmp_path / "lora.safetensors", keys)
    adapters = Adapters(model._transformer, lambda _name: path, 1)
    with pytest.raises(StatusError) as caught:
        adapters.use((LoraUse("mine", 1.0),))
    assert (caught.value.code, caught.value.reason) == (Code.FAILED_PRECONDITION, "LORA_UNUSABLE")
    assert why in caught.value.text
    assert not adapters.active


@pytest.mark.parametrize("content", [b"", b"no safetensors file at all", b"\xff" * 64])
def test_a_lora_that_is_no_file_of_its_kind(model: Model, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "lora.safetensors"
    path.write_bytes(content)
    with pytest.raises(StatusError) as caught:
        Adapters(model._transformer, lambda _name: path, 1).use((LoraUse("mine", 1.0),))
    assert caught.value.reason == "LORA_UNUSABLE"


@pytest.mark.parametrize("prefix", ["transformer.", "diffusion_model.", "base_model.model.", ""])
def test_key_styles_give_the_same_numbers(model: Model, tmp_path: Path, prefix: str) -> None:
    tensors = load_file(MODEL_DIR / "loras/pastel.safetensors")
    path = tmp_path / "lora.safetensors"
    save_file({prefix + key.removeprefix("transformer."): tensor for key, tensor in tensors.items()}, path)
    assert drawn_with(model, path) == drawn_with(model, MODEL_DIR / "loras/pastel.safetensors")


def test_kohya_keys_with_alpha(model: Model, tmp_path: Path) -> None:
    renamed: dict[str, torch.Tensor] = {}
    for key, tensor in load_file(MODEL_DIR / "loras/pastel.safetensors").items():
        layer, role = key.removeprefix("transformer.").rsplit(".lora_", 1)
        flat = f"lora_unet_{layer.replace('.', '_')}"
        renamed[f"{flat}.lora_{'down' if role.startswith('A') else 'up'}.weight"] = tensor
        if role.startswith("A"):
            renamed[f"{flat}.alpha"] = torch.tensor(float(tensor.shape[0]))
    path = tmp_path / "lora.safetensors"
    save_file(renamed, path)
    assert drawn_with(model, path) == drawn_with(model, MODEL_DIR / "loras/pastel.safetensors")


def drawn_with(model: Model, path: Path) -> bytes:
    kept = model._adapters
    model._adapters = Adapters(model._transformer, lambda _name: path, 1)
    try:
        return draw(model, drawing(steps=2, loras=(LoraUse("mine", 1.0),)))[0].rgb
    finally:
        model._adapters.forget()
        model._adapters = kept


def test_a_prompt_that_is_too_long_is_never_cut(model: Model) -> None:
    with pytest.raises(StatusError) as caught:
        draw(model, drawing("circle " * 100))
    assert (caught.value.code, caught.value.reason) == (Code.INVALID_ARGUMENT, "PROMPT_TOO_LONG")
    assert caught.value.metadata["limit"] == "64"
    draw(model, drawing())


def request(**changes: Any) -> Any:
    base = {"request_id": "r", "prompt": "a red circle", "width": 128, "height": 128, "steps": 8}
    items = changes.pop("items", [{"seed": 1, "latents": noise(1).tobytes()}])
    return message("EngineGenerateRequest")(**{**base, **changes}, items=items)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"prompt": ""}, "prompt"),
        ({"width": 100}, "width"),
        ({"height": 4096}, "height"),
        ({"steps": 0}, "steps"),
        ({"steps": 1000}, "steps"),
        ({"guidance_scale": float("nan")}, "guidance_scale"),
        ({"negative_prompt": "a square"}, "negative_prompt"),
        ({"loras": [{"name": "pastel", "strength": float("nan")}]}, "loras[0].strength"),
        ({"loras": [{"name": "pastel", "strength": 3}]}, "loras[0].strength"),
        ({"loras": [{"name": "pastel", "strength": 1}] * 2}, "loras[1].name"),
        ({"items": []}, "items"),
        ({"items": [{"seed": 1, "latents": b"1234"}]}, "items[0].latents"),
        ({"request_id": "a b"}, "request_id"),
    ],
)
def test_a_request_that_is_no_good(model: Model, changes: dict[str, Any], field: str) -> None:
    with pytest.raises(StatusError) as caught:
        order_of(request(**changes), model.folder.info)
    assert (caught.value.code, caught.value.reason) == (Code.INVALID_ARGUMENT, "BAD_REQUEST")
    assert [violation.field for violation in caught.value.violations] == [field]


def test_details_are_what_the_mesh_reads(model: Model) -> None:
    with pytest.raises(StatusError) as caught:
        order_of(request(loras=[{"name": "unknown", "strength": 1}]), model.folder.info)
    status = message("Status", "google.rpc").FromString(caught.value.details())
    info = message("ErrorInfo", "google.rpc").FromString(status.details[0].value)
    resource = message("ResourceInfo", "google.rpc").FromString(status.details[1].value)
    assert (status.code, info.reason, info.domain) == (5, "UNKNOWN_LORA", "diffusionmesh")
    assert resource.resource_name == "unknown"
    many = SimpleNamespace(text="x" * 100_000)
    assert len(StatusError(Code.INTERNAL, "INTERNAL", many.text).details()) < 8192


@pytest.mark.parametrize("alpha", [float("nan"), float("inf")])
def test_a_lora_whose_scale_is_no_number(model: Model, tmp_path: Path, alpha: float) -> None:
    path = tmp_path / "lora.safetensors"
    pair = {key: torch.full(shape, 0.01) for key, shape in GOOD.items()}
    save_file({**pair, "transformer.layers.0.attention.to_q.alpha": torch.tensor(alpha)}, path)
    with pytest.raises(StatusError, match="not finite") as caught:
        Adapters(model._transformer, lambda _name: path, 1).use((LoraUse("mine", 1.0),))
    assert caught.value.reason == "LORA_UNUSABLE"
