"""Parts of all generations with each other, and the legacy models: trained, exported, run."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.structures import Boxes, Instances

from nanodet_d2.config import apply_overrides, shipped_configs
from nanodet_d2.export.formats import find_format
from nanodet_d2.export.job import check_resize
from nanodet_d2.export.writer import export
from nanodet_d2.runtime import Detector
from nanodet_d2.runtime.backends import backend_of, open_backend
from nanodet_d2.runtime.metadata import read_metadata
from tests.small_models import formats_here, require_format

LEGACY = "../../nanodet/configs/{}.py"
HEAD = """
from detectron2.config import LazyCall as L
from nanodet_d2 import modeling
from nanodet_d2.config import LazyPartial, get_config
_base = get_config("{base}")
data, dataloader, train, model = _base.data, _base.dataloader, _base.train, _base.model
"""
TIMM = 'L(modeling.TimmBackbone)(model_name="mobilenetv3_small_050")'
MIXED = {
    "legacy head, timm backbone": ("nanodet/nanodet_m_320.py", f"model.backbone = {TIMM}"),
    "legacy head, GhostPAN": (
        "nanodet/nanodet_m_0_5x_320.py",
        "model.neck = LazyPartial(modeling.GhostPAN)(out_channels=32)",
    ),
    "Plus head, PAN": (
        "nanodet_plus/demo_shapes.py",
        "model.neck = LazyPartial(modeling.PAN)(out_channels=64)\n"
        "model.aux_detach_iter = 9  # else the demo leaves the branch out",
    ),
    "GFLHead, FPN": (
        "nanodet/nanodet_m_0_5x_320.py",
        "model.neck = LazyPartial(modeling.FPN)(out_channels=32)\n"
        "model.head = LazyPartial(modeling.GFLHead)("
        "num_classes=model.head.num_classes, stacked_convs=1)",
    ),
}
SHIPPED = {
    "nanodet_m_320": ("model.backbone.size=0.5x",),
    "nanodet_g_416": (),
    "nanodet_t_320": ("model.backbone.size=0.5x",),
    "nanodet_efficientnet_lite0_320": (),
    "nanodet_repvgg_a0_416": (),
}
CONFIGS = {
    name: str(path)
    for name, path in shipped_configs().items()
    if name.startswith("nanodet/") and not name.endswith("base.py")
}


@pytest.fixture
def config_of(tmp_path):
    """Path of a mixed config, as ``small_models`` takes it."""

    def write(name: str) -> str:
        base, change = MIXED[name]
        path = tmp_path / "mixed.py"
        path.write_text(HEAD.format(base=base) + change + "\n")
        return str(path)

    return write


def train_a_step(config: str) -> None:
    cfg = apply_overrides(LazyConfig.load(config), ["data.classes=[a,b,c]"])
    torch.manual_seed(0)
    model = instantiate(cfg.model).train()
    instances = Instances((64, 96))
    instances.gt_boxes = Boxes(torch.tensor([[8.0, 8, 60, 50], [50, 20, 90, 60]]))
    instances.gt_classes = torch.tensor([0, 2])
    batch = [{"image": torch.randint(0, 256, (3, 64, 96)), "instances": instances}] * 2
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    values = []
    for _ in range(2):
        losses = model(batch)
        total = sum(losses.values())
        optimizer.zero_grad()
        total.backward()
        assert all(x.grad is None or torch.isfinite(x.grad).all() for x in model.parameters())
        optimizer.step()
        values.append(float(total))
    assert all(np.isfinite(values)) and values[0] != values[1]


def check(loaded, job) -> None:
    for written in export(loaded, job):
        assert all(x.value <= x.allowed for x in written.differences)
        found = read_metadata(
            written.path,
            open_backend(written.path).embedded,
            backend_of(written.path).metadata_path(written.path),
        )
        assert found.prior_offset == loaded.metadata.prior_offset
        assert found.input.resize == loaded.metadata.input.resize
        image = np.random.default_rng(0).integers(0, 256, (70, 160, 3), dtype=np.uint8)
        boxes = Detector(written.path, score_thresh=0.0)(image).xyxy
        assert boxes.min() >= 0 and (boxes.max(axis=0) <= [160, 70, 160, 70]).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", MIXED)
def test_mixed_parts_train_and_export(name, config_of, make_job):
    train_a_step(config_of(name))
    loaded, job = make_job(config=config_of(name), size=(128, 64))
    assert loaded.metadata.prior_offset == (0.0 if "Plus" in name else 0.5)
    assert loaded.metadata.input.resize == ("stretch" if "Plus" in name else "fit")
    check(loaded, job)


@pytest.mark.parametrize("kind", ["raw", "decoded"])
def test_a_legacy_model_exports(kind, make_job):
    config, overrides = LEGACY.format("nanodet_m_320"), SHIPPED["nanodet_m_320"]
    check(*make_job(config=config, overrides=overrides, size=(128, 64), kind=kind))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["raw", "decoded"])
@pytest.mark.parametrize("name", SHIPPED)
def test_all_formats(name, kind, make_job):
    require_format("onnx")
    config, overrides = LEGACY.format(name), SHIPPED[name]
    able = [x for x in formats_here(kind) if find_format(x).fits_images]
    options = dict(formats=able, kind=kind, size=(128, 64))
    check(*make_job(config=config, overrides=overrides, **options))


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_a_step_of_each_config_is_finite(name):
    train_a_step(CONFIGS[name])


def test_what_can_only_stretch_is_refused(make_job):
    config, overrides = LEGACY.format("nanodet_m_320"), SHIPPED["nanodet_m_320"]
    cases = (
        (dict(kind="end2end", formats=["onnx", "openvino"]), "--kind end2end of openvino"),
        (dict(formats=["onnx", "tensorrt"]), "--format tensorrt"),
    )
    for options, words in cases:
        loaded, job = make_job(config=config, overrides=overrides, size=(128, 64), **options)
        with pytest.raises(
            ValueError,
            match=f"^{words} with a model whose images keep their prop.*end2end of onnx$",
        ):
            export(loaded, job)
        assert not job.output.exists()
        check_resize(job, "stretch")
