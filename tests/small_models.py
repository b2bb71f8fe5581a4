"""Small models with random weights, their files, and skips."""

from __future__ import annotations

import copy
import dataclasses
import functools
import hashlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import LazyConfig, instantiate

from nanodet_d2.config import apply_overrides
from nanodet_d2.data.shapes import CLASS_NAMES
from nanodet_d2.export.formats import find_format, formats
from nanodet_d2.export.formats.onnx import network_to_onnx
from nanodet_d2.export.job import Job
from nanodet_d2.export.loading import LoadedModel, load_model
from nanodet_d2.export.products import Products
from nanodet_d2.runtime.metadata import ExportMetadata

CONFIGS = Path(__file__).resolve().parents[1] / "projects" / "nanodet_plus" / "configs"
SMALL = "demo_shapes.py"


def require(*packages: str) -> None:
    """Skip where an optional package is not installed."""
    for name in packages:
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed: pip install nanodet-d2[export]")


def require_format(name: str) -> None:
    """Skip where files of a format cannot be written and run, if there is such a format."""
    if name not in formats():
        return
    packages = find_format(name).packages
    missing = [x for x in packages if importlib.util.find_spec(x) is None]
    if missing and formats()[name].environment and not isolated(name):
        command = f"nanodet-d2 export MODEL --format {name} --isolated"
        pytest.skip(f"{missing[0]} is not there: {command}")
    if not isolated(name):
        require(*packages)
    require(find_format(name).backend.needs())


def isolated(name: str) -> bool:
    """Whether a format's converter has its environment on this machine; tests make none."""
    environment = formats()[name].environment if name in formats() else None
    return environment is not None and environment.ready


def formats_here(kind: str = "raw") -> list[str]:
    """Formats whose files of a kind can be written and run on this machine."""
    found = []
    for name, format in formats().items():
        packages = () if isolated(name) else format.packages
        needed = [*packages, format.backend.needs()]
        if all(importlib.util.find_spec(x) for x in needed):
            found.append(name)
    return [x for x in found if kind == "raw" or f"kind {kind}" in formats()[x].options]


# All formats; those that are less used, or whose converter takes a minute, are marked slow.
SLOW_FORMATS = ("coreml", "executorch", "litert", "mnn", "ncnn", "tensorrt")
FORMAT_CASES = [
    pytest.param(name, marks=[pytest.mark.slow] if name in SLOW_FORMATS else [])
    for name in formats()
]


def random_state(config: str, overrides: Sequence[str]) -> dict[str, torch.Tensor]:
    """Weights of a config's model with some scores on both sides of the threshold."""
    torch.manual_seed(0)
    cfg = apply_overrides(LazyConfig.load(str(CONFIGS / config)), overrides)
    if cfg.model.backbone.get("pretrained"):
        cfg.model.backbone.pretrained = False  # nothing is fetched in tests
    model = instantiate(cfg.model).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0  # takes the statistics of the one batch below
    model.train()
    with torch.no_grad():
        model.head(model.neck(model.backbone(torch.randn(4, 3, 128, 128))))
    model.eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            # a channel that the batch left dead would make hundreds of what another image has there
            module.running_var.clamp_(min=0.01 * float(module.running_var.mean()))
    ends = getattr(model.head, "predictors", None)
    for predictor in ends or (model.head.class_predictor, model.head.box_predictor):
        for conv in predictor.modules():
            if isinstance(conv, torch.nn.Conv2d):
                torch.nn.init.normal_(conv.weight, std=0.05)
                torch.nn.init.uniform_(conv.bias, -4, -2)
    return model.state_dict()


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A config, a checkpoint of random weights for it, and what else ``load_model`` takes."""

    config: str
    checkpoint: str
    input_size: tuple[int, int]
    overrides: tuple[str, ...]

    def load(self) -> LoadedModel:
        return load_model(
            self.config, self.checkpoint, input_size=self.input_size, overrides=self.overrides
        )


class OnnxNetworks:
    """``network_to_onnx``, which takes seconds, once for each network; for other code a copy."""

    def __init__(self) -> None:
        self.made: dict[tuple, Any] = {}

    def __call__(self, network: torch.nn.Module, metadata: ExportMetadata, outputs: Sequence[str]):
        x, weights = metadata.input, hashlib.sha1()
        for value in network.state_dict().values():
            weights.update(value.numpy().tobytes())
        key = (type(network), weights.digest(), x.height, x.width, x.dynamic, tuple(outputs))
        if key not in self.made:
            self.made[key] = network_to_onnx(network, metadata, outputs)
        return copy.deepcopy(self.made[key])


class SmallModels:
    """Models and files in a folder; what was made once is not made again."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._recipe = functools.cache(self._make_recipe)
        self._loaded = functools.cache(Recipe.load)
        self._file = functools.cache(self._make_file)

    def recipe(
        self,
        *,
        config: str = SMALL,
        names: tuple[str, ...] = CLASS_NAMES,
        size: tuple[int, int] = (96, 64),
        overrides: tuple[str, ...] = (),
    ) -> Recipe:
        """A config, with random weights for it."""
        return self._recipe(config, names, size, overrides)

    def loaded(self, **options: Any) -> LoadedModel:
        """The model of a recipe; options as there."""
        return self._loaded(self.recipe(**options))

    def file(self, format: str, *, kind: str = "raw", dynamic: bool = False) -> Path:
        """An unverified file of the small model; skips where it cannot be written and run."""
        require_format(format)
        return self._file(format, kind, dynamic)

    def _make_recipe(
        self, config: str, names: tuple[str, ...], size: tuple[int, int], overrides: tuple[str, ...]
    ) -> Recipe:
        overrides = (f"data.classes=[{','.join(map(repr, names))}]", *overrides)
        path = self.folder / f"{len(list(self.folder.iterdir()))}.pth"
        torch.save({"model": random_state(config, overrides)}, path)
        return Recipe(str(CONFIGS / config), str(path), size, overrides)

    def _make_file(self, format: str, kind: str, dynamic: bool) -> Path:
        folder = self.folder / f"{format}_{kind}_{dynamic}"
        folder.mkdir()
        loaded = self.loaded()
        job = Job((format,), folder, kind=kind, dynamic=dynamic, isolated=isolated(format))
        path = job.path("small", format)
        Products(loaded.model, loaded.metadata, job).write(format, path)
        return path
