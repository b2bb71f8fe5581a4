"""Models to export, in evaluation mode, and the facts about them."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Sequence
from importlib import metadata as packages
from typing import Any

from detectron2.config import instantiate

from nanodet_d2 import __version__
from nanodet_d2.checkpoint import load_weights
from nanodet_d2.checkpoint.fetching import local_path, sha256
from nanodet_d2.checkpoint.loading import AUX_PARTS
from nanodet_d2.data.splits import names_for_model
from nanodet_d2.modeling import NanoDetPlus
from nanodet_d2.modeling.backbone import without_pretrained_weights
from nanodet_d2.modeling.meta_arch.nanodet_plus import REFERENCE_INPUT
from nanodet_d2.resolve import ModelSource, resolve
from nanodet_d2.runtime.metadata import STRETCH, ExportMetadata, InputDescription, check_size

from .preparation import check_preparation

VERSIONED = (
    "torch", "onnx", "onnxscript", "onnxslim", "onnxruntime", "openvino", "pnnx", "ncnn",
    "MNN", "ai-edge-litert", "executorch", "coremltools",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """A config's detector with a checkpoint's weights, in evaluation mode on the CPU."""

    model: NanoDetPlus
    metadata: ExportMetadata


def load_model(
    source: str,
    checkpoint: str | None = None,
    *,
    input_size: Sequence[int] | None = None,
    overrides: Sequence[str] = (),
    trust: bool = False,
) -> LoadedModel:
    """Build a model and load a checkpoint that fits it as a whole.

    Args:
        source: what ``nanodet_d2.resolve.resolve`` knows: a config, the ``config.yaml`` that a
            training wrote, or a checkpoint that a training wrote, which needs nothing else.
        checkpoint: path or URL of any file that ``load_weights`` knows; the source's own if None.
        input_size: (height, width) in place of the config's.
        overrides: ``key=value`` of the config.
        trust: let a checkpoint name any code to build its model with.

    Raises:
        FileNotFoundError: if a file is not there.
        ValueError: for a source that is refused, a checkpoint that does not fit, or an input that
            cannot be exported.
    """
    resolved = resolve(source, overrides, trust=trust)
    checkpoint = checkpoint or resolved.weights()
    cfg = resolved.cfg
    resize = check_preparation(cfg, input_size)
    model = _build(resolved)
    load_weights(model, checkpoint, require_all=True)
    size = input_size or cfg.data.input_size
    other = "" if list(size) == list(cfg.data.input_size) else "_" + "x".join(map(str, size))
    return describe_model(
        model,
        name=resolved.name + other,
        class_names=names_for_model(cfg.data, model.head.num_classes),
        input_size=size,
        checkpoint_sha256=sha256(local_path(checkpoint)),
        resize=resize,
    )


def describe_model(
    model: NanoDetPlus,
    *,
    name: str,
    class_names: Sequence[str],
    input_size: Sequence[int],
    checkpoint_sha256: str = "",
    resize: str = STRETCH,
) -> LoadedModel:
    """What exports and detectors need to know of a model in memory, which is set to evaluate.

    Args:
        name: of its files.
        class_names: in the order of the scores.
        input_size: (height, width) in pixels.
        resize: how an image is brought to it, as in ``InputDescription``.

    Raises:
        ValueError: for another number of names than classes, or an input that does not fit.
    """
    if len(class_names) != model.head.num_classes:
        raise ValueError(
            f"{len(class_names)} class names; the model has {model.head.num_classes} classes"
        )
    check_size(input_size, model.size_divisibility)
    height, width = input_size
    metadata = ExportMetadata(
        name=name,
        kind="raw",
        class_names=tuple(class_names),
        strides=tuple(model.head.strides),
        reg_max=model.head.reg_max,
        input=InputDescription(
            name="data",
            height=int(height),
            width=int(width),
            dynamic=False,
            channel_order=getattr(model.backbone, "input_spec", REFERENCE_INPUT)[0],
            mean=tuple(round(float(x), 6) for x in model.pixel_mean.flatten()),
            std=tuple(round(float(x), 6) for x in model.pixel_std.flatten()),
            size_divisor=model.size_divisibility,
            resize=resize,
        ),
        outputs=("output",),
        score_threshold=model.select["score_thresh"],
        nms_threshold=model.select["nms_thresh"],
        max_detections=model.select["max_detections"],
        nms=model.select["nms"],
        vote_threshold=model.select["vote_thresh"],
        vote_power=float(model.select["vote_power"]),
        versions=versions(),
        checkpoint_sha256=checkpoint_sha256,
        prior_offset=float(getattr(model.head, "prior_offset", 0.0)),
    )
    return LoadedModel(model.eval(), metadata)


def describe_source(
    source: str, *, overrides: Sequence[str] = (), trust: bool = False
) -> dict[str, Any]:
    """What a config, a name or a checkpoint is, by name; no weights are loaded or fetched.

    Args:
        source, overrides, trust: as of :func:`load_model`.

    Raises:
        FileNotFoundError, ValueError: as :func:`load_model`.
    """
    resolved = resolve(source, overrides, trust=trust)
    model = _build(resolved)
    sizes = {name: x.numel() for name, x in model.named_parameters()}
    names = names_for_model(resolved.cfg.data, model.head.num_classes)
    facts = {
        "source": source,
        "name": resolved.name,
        "config": resolved.config_file or "in the checkpoint",
        "input": list(resolved.cfg.data.input_size),
        "classes": len(names),
        "class_names": names,
        "backbone": type(model.backbone).__name__,
        "strides": list(model.head.strides),
        "parameters": sum(n for name, n in sizes.items() if not name.startswith(AUX_PARTS)),
        "parameters_in_training": sum(sizes.values()),
        "score_threshold": model.select["score_thresh"],
        "nms_threshold": model.select["nms_thresh"],
        "nms": model.select["nms"],
    }
    if resolved.checkpoint is not None:
        facts["sha256"] = sha256(local_path(resolved.checkpoint))
        facts["nanodet_d2"] = resolved.version
    return facts


def _build(resolved: ModelSource) -> NanoDetPlus:
    """A source's model, whose weights are still to be loaded."""
    try:
        with without_pretrained_weights():
            model = instantiate(resolved.cfg.model)
    except (TypeError, AssertionError, AttributeError) as error:
        if resolved.checkpoint is None:
            raise
        # of another version, or damaged
        raise ValueError(
            f"the model that {resolved.checkpoint} tells of cannot be built here ({error}); give "
            "its config as well"
        ) from error
    if not isinstance(model, NanoDetPlus):
        raise ValueError(f"{resolved.name} is a {type(model).__name__}; allowed: NanoDetPlus")
    return model


def versions() -> dict[str, str]:
    """Of this package and of those that it exports with, where they are installed."""
    found = {"nanodet_d2": __version__, "python": platform.python_version()}
    for name in VERSIONED:
        try:
            found[name] = packages.version(name)
        except packages.PackageNotFoundError:
            continue
    return found
