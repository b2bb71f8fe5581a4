"""Versions of everything that matters here, and a self-check.

Without torch or detectron2 it tells the versions all the same, and how to get them.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import time
from collections.abc import Sequence

import nanodet_d2

from .importing import missing_sentence

MISSING = missing_sentence()
if not MISSING:
    import torch
    from detectron2.structures import Boxes, Instances

    from .compat import has_compiled_op
    from .modeling import GhostPAN, NanoDetPlus, NanoDetPlusHead, ShuffleNetV2, SimpleConvHead

# import name -> names for pip, of which one is there
REQUIRED = {
    "torch": ("torch",),
    "torchvision": ("torchvision",),
    "detectron2": ("detectron2",),
    "fvcore": ("fvcore",),
    "omegaconf": ("omegaconf",),
    "numpy": ("numpy",),
    "cv2": ("opencv-python-headless", "opencv-python", "opencv-contrib-python"),
    "PIL": ("pillow",),
    "pycocotools": ("pycocotools",),
    "timm": ("timm",),
}
OPTIONAL = {
    "onnx": ("onnx",),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "openvino": ("openvino",),
    "ncnn": ("ncnn",),
    "pnnx": ("pnnx",),
    "MNN": ("MNN",),
    "coremltools": ("coremltools",),
    "executorch": ("executorch",),
    "ai_edge_litert": ("ai-edge-litert",),
}
_SIZE = 64  # of the self-check's images, pixels
_COMPARED = 5  # best detections
_TOLERANCE = {"cpu": 1e-4, "cuda": 1e-2}  # of scores; convolutions on GPUs may round to TF32


def version(module: str, packages: Sequence[str]) -> str:
    """Version of a package, without importing it; "-" if it is not there."""
    if importlib.util.find_spec(module) is None:
        program = shutil.which(module)  # pnnx is a program as well
        return f"program {program}" if program else "-"
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(package)
    return "there, of unknown version"


def detectron2_flavour() -> str:
    """Whether detectron2's operators are compiled; NanoDet-Plus needs none of them."""
    operators = ("nms_rotated", "COCOevalEvaluateImages")
    return "compiled" if any(map(has_compiled_op, operators)) else "Python only"


def devices() -> str:
    """The devices, in words."""
    found = [f"CPU, {os.cpu_count()} cores"]
    if importlib.util.find_spec("torch") is None:
        return found[0]
    import torch

    found[0] += f", {torch.get_num_threads()} threads"
    for i in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(i)
        found.append(f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB")
    if torch.version.cuda:
        found.append(f"torch for CUDA {torch.version.cuda}")
    return "; ".join(found)


def facts() -> dict[str, str]:
    """What a report of a fault should tell."""
    found = {
        "nanodet_d2": f"{nanodet_d2.__version__} in {os.path.dirname(nanodet_d2.__file__)}",
        "Python": f"{platform.python_version()} on {platform.platform()}",
        "device": devices(),
        **{packages[0]: version(module, packages) for module, packages in REQUIRED.items()},
        **{f"{packages[0]} (optional)": version(m, packages) for m, packages in OPTIONAL.items()},
    }
    if MISSING:
        return {**found, "detectron2": f"not installed: {MISSING}"}
    return {**found, "detectron2's operators": detectron2_flavour()}


def self_check(device: str) -> str:
    """Build a tiny model, train it a step, run it twice and fused.

    Args:
        device: "cpu" or "cuda".

    Returns:
        what was done, in one line.

    Raises:
        RuntimeError: if a result is not what it has to be.
    """
    torch.manual_seed(0)
    model = NanoDetPlus(
        backbone=ShuffleNetV2("0.5x", activation="LeakyReLU"),
        neck=functools.partial(GhostPAN, out_channels=32),
        head=functools.partial(NanoDetPlusHead, num_classes=2),
        aux_head=functools.partial(SimpleConvHead, stacked_convs=1),
        score_thresh=0.0,
    ).to(device)
    image = torch.randint(0, 256, (3, _SIZE, _SIZE), dtype=torch.uint8)
    truth = Instances(
        (_SIZE, _SIZE),
        gt_boxes=Boxes(torch.tensor([[8.0, 8.0, 40.0, 48.0]])),
        gt_classes=torch.tensor([1]),
    )
    sample = {"image": image, "height": _SIZE, "width": _SIZE}

    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    loss = sum(model([{**sample, "instances": truth}] * 2).values())
    loss.backward()
    loss = loss.detach()
    optimizer.step()
    _require(bool(loss.isfinite()), f"the loss is {loss}")
    learnt = model.get_submodule("head").parameters()
    moved = [p.grad is not None and bool(p.grad.abs().sum() > 0) for p in learnt]
    _require(any(moved), "no gradient reached the head")

    model.eval()
    with torch.no_grad():
        first, again = (model([sample])[0]["instances"] for _ in range(2))
        model.fuse()
        fused = model([sample])[0]["instances"]
    _require(len(first) > 0, "nothing was detected at a threshold of 0")
    for name, other in (("again", again), ("fused", fused)):
        scores = [x.scores.sort(descending=True).values[:_COMPARED] for x in (first, other)]
        difference = float((scores[0] - scores[1]).abs().max())
        _require(difference < _TOLERANCE[device], f"scores {name} differ by {difference:.1e}")
    return f"a training step (loss {float(loss):.3f}), and inference twice the same, on {device}"


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise RuntimeError(otherwise)


def report() -> tuple[dict[str, str], bool]:
    """All facts with the outcome of the self-check, and whether it passed."""
    found = facts()
    if MISSING:
        return {**found, "self-check": "not run"}, False
    began, passed = time.perf_counter(), True
    for device in ("cpu", *(["cuda"] if torch.cuda.is_available() else [])):
        try:
            outcome = self_check(device)
        except Exception as error:  # whatever it is, it is the finding
            outcome, passed = f"FAILED on {device}: {type(error).__name__}: {error}", False
        found[f"self-check, {device}"] = outcome
    found["self-check took"] = f"{time.perf_counter() - began:.1f} s"
    return found, passed
