"""From a model folder to a model that can draw, component by component; what is wrong with the folder is said in a sentence."""

import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from .any_pipeline import PipelineModel
from .config import Options, compile_sizes
from .device import Placement, free_cached, place
from .drawing import Model, now_ms
from .eight_bit import shrink
from .errors import StatusError, listed, model_unusable
from .faults import is_context_fault, is_out_of_memory
from .folder import Component, ModelFolder, read_folder
from .log import Log
from .z_image import ZImageModel

# In this order: the largest comes while the most memory is free of the rest.
_Z_IMAGE_PARTS = ("tokenizer", "scheduler", "transformer", "text_encoder", "vae")


def be_quiet() -> None:
    """The log tells of progress; bars on standard error would be lines of it."""
    for library in (diffusers, transformers):
        library.utils.logging.disable_progress_bar()
        library.utils.logging.set_verbosity_error()


def load(model_dir: str, options: Options, log: Log) -> Model:
    """FAILED_PRECONDITION/MODEL_UNUSABLE names what is missing or wrong; a load that fails leaves no memory behind."""
    folder = read_folder(model_dir, verify=options.verify)
    placement = place(options)
    log(
        "info",
        "loading",
        model=folder.info.full_name,
        family=folder.pipeline_class,
        bytes_total=folder.weight_bytes,
        device=str(placement.device),
        dtype=str(placement.dtype),
    )
    try:
        if folder.is_z_image:
            return _load_z_image(folder, placement, options, log)
        return _load_pipeline(folder, placement, options, log)
    except Exception as error:
        _forget_frames(error)
        free_cached(placement.device)
        raise


def _load_z_image(folder: ModelFolder, placement: Placement, options: Options, log: Log) -> ZImageModel:
    missing = [part for part in _Z_IMAGE_PARTS if part not in folder.components]
    if missing:
        raise model_unusable(f"model_index.json of {folder.info.name} lacks {listed(missing)}")
    parts: dict[str, Any] = {}
    loaded_bytes = 0
    shrunk = {"transformer": options.weights, "text_encoder": options.text_encoder}
    for name in _Z_IMAGE_PARTS:
        component = folder.components[name]
        started_at_ms = now_ms()
        device = placement.text_encoder_device if name == "text_encoder" else placement.device
        in_eight_bits = shrunk.get(name) == "fp8"
        # Those come to the device layer by layer: the GPU never has to hold the full weights.
        parts[name] = _load_component(folder, component, placement.dtype, torch.device("cpu") if in_eight_bits else device)
        if in_eight_bits:
            freed_bytes = shrink(parts[name], device)
            parts[name].to(device)
            free_cached(device)
            log("info", "weights in 8 bits", component=name, freed_bytes=freed_bytes)
        loaded_bytes += component.weight_bytes
        log(
            "info" if component.weight_bytes > 0 else "debug",
            "component loaded",
            component=name,
            bytes_done=loaded_bytes,
            bytes_total=folder.weight_bytes,
            took_ms=round(now_ms() - started_at_ms),
        )
    _expect_shapes(folder, parts)
    if options.attention != "native":
        # diffusers would make it that of every model in the process, which others than this transformer may not take.
        with diffusers.attention_backend("native"):
            _or_unusable(f"attention {options.attention}", partial(parts["transformer"].set_attention_backend, options.attention))
    if options.compile != "off":
        parts["transformer"].compile_repeated_blocks()
    model = ZImageModel(folder, parts, placement, options)
    asked = [("attention", options.attention, "native"), ("weights", options.weights, "full")]
    unusual = [f"{name} {value}" for name, value, usual in asked if value != usual]
    if unusual:
        # A kernel may be there and not do for this GPU: said here, not by every request.
        limits = folder.info.limits
        _or_unusable(", ".join(unusual), partial(model.warm_up, [(limits.min_width, limits.min_height)]))
    for size in compile_sizes(options.compile):
        started_at_ms = now_ms()
        _or_unusable(f"compile {size[0]}x{size[1]}", partial(model.warm_up, [size]))
        log("info", "size warmed up", width=size[0], height=size[1], took_ms=round(now_ms() - started_at_ms))
    return model


def _load_pipeline(folder: ModelFolder, placement: Placement, options: Options, log: Log) -> PipelineModel:
    if not hasattr(diffusers, folder.pipeline_class):
        raise model_unusable(
            f"model_index.json of {folder.info.name}: diffusers has no {folder.pipeline_class or 'pipeline without a name'}"
        )
    if "fp8" in (options.weights, options.text_encoder):
        kind = folder.pipeline_class
        raise model_unusable(f"model {folder.info.name}: weights in fp8 are for models of the Z-Image family, this is a {kind}")
    asked = [
        ("attention", options.attention, "native"),
        ("compile", options.compile, "off"),
        ("text_encoder", options.text_encoder, "auto"),
    ]
    without_effect = [f"{name} {value}" for name, value, usual in asked if value != usual]
    if without_effect:
        log("warn", "settings for the Z-Image family alone", model=folder.info.full_name, without_effect=without_effect)
    started_at_ms = now_ms()
    pipe = _or_unusable(
        f"model {folder.info.name}",
        lambda: diffusers.DiffusionPipeline.from_pretrained(folder.dir, dtype=placement.dtype, local_files_only=True).to(placement.device),
    )
    pipe.set_progress_bar_config(disable=True)
    total = folder.weight_bytes
    log(
        "info",
        "pipeline loaded",
        pipeline=folder.pipeline_class,
        bytes_done=total,
        bytes_total=total,
        took_ms=round(now_ms() - started_at_ms),
    )
    return PipelineModel(folder, pipe, placement, options)


def _load_component(folder: ModelFolder, component: Component, dtype: torch.dtype, device: torch.device) -> Any:
    library = {"diffusers": diffusers, "transformers": transformers}.get(component.library)
    kind = getattr(library, component.class_name, None)
    if kind is None:
        raise model_unusable(f"model_index.json of {folder.info.name}: there is no {component.library}.{component.class_name}")
    return _or_unusable(
        f"{component.name} of model {folder.info.name}",
        lambda: _from_pretrained(kind, folder.dir / component.name, component, dtype, device),
    )


def _from_pretrained(kind: Any, path: Path, component: Component, dtype: torch.dtype, device: torch.device) -> Any:
    if component.weight_bytes == 0:
        return kind.from_pretrained(path, local_files_only=True)
    module, found = kind.from_pretrained(path, local_files_only=True, output_loading_info=True, dtype=dtype)
    missing = list(found["missing_keys"])
    if missing:
        raise ValueError(f"its files lack {len(missing)} weights: {listed(missing)}")
    return module.to(device).eval().requires_grad_(False)


def _or_unusable(what: str, action: Callable[[], Any]) -> Any:
    """Libraries refuse a bad folder with exceptions of many kinds."""
    try:
        return action()
    except StatusError:
        raise
    except Exception as error:
        if is_out_of_memory(error) or is_context_fault(error):
            raise
        raise model_unusable(f"{what}: {type(error).__name__}: {error}") from error


def _forget_frames(error: BaseException | None) -> None:
    """What was loaded so far is held by nothing but the frames of the failure; what a closure has, they do not let go."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__


def _expect_shapes(folder: ModelFolder, parts: dict[str, Any]) -> None:
    """What the node's noise and the sampling loop take for granted."""
    transformer, vae, encoder = (parts[name].config for name in ("transformer", "vae", "text_encoder"))
    faults = []
    for what, expected, got in (
        ("transformer: in_channels", 16, transformer.in_channels),
        ("vae: latent_channels", 16, vae.latent_channels),
        ("vae: pixels for each latent", 8, 2 ** (len(vae.block_out_channels) - 1)),
        ("text_encoder: hidden_size", transformer.cap_feat_dim, encoder.hidden_size),
    ):
        if got != expected:
            faults.append(f"{what}: expected {expected}, got {got}")
    if faults:
        raise model_unusable(f"model {folder.info.name}: {'; '.join(faults)}")
