"""The configs work with trainers that know nothing of this project."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from pathlib import Path

import detectron2
import pytest
import torch
from detectron2 import model_zoo
from detectron2.config import LazyConfig, instantiate
from omegaconf import OmegaConf

from nanodet_d2 import get_detectron2
from nanodet_d2.checkpoint.convert import convert_to_detectron2
from nanodet_d2.config import apply_overrides

_COMMON = dict(
    output_dir="./output",
    init_checkpoint="",
    max_iter=90000,
    amp=dict(enabled=False),
    ddp=dict(broadcast_buffers=False, find_unused_parameters=False, fp16_compression=False),
    checkpointer=dict(period=5000, max_to_keep=100),
    eval_period=5000,
    log_period=20,
    device="cuda",
)
# What the ``train`` nodes of others have: names and defaults of configs/common/train.py.
TRAIN_NODES = {
    "detectron2 0.6": _COMMON,
    "detrex": dict(
        **_COMMON,
        clip_grad=dict(enabled=False, params=dict(max_norm=0.1, norm_type=2)),
        fast_dev_run=dict(enabled=False),
        wandb=dict(enabled=False, params=dict(dir="./w", project="detrex", name="a")),
    ),
    "the installed detectron2": None,
    "the least": dict(max_iter=10),
}


@pytest.mark.parametrize("node", TRAIN_NODES)
def test_everything_is_built_with_the_train_node_of_others(
    root, node, shapes_overrides, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)  # where "./output" is
    path = root / "projects" / "nanodet_plus" / "configs" / "demo_shapes.py"
    workers = ["dataloader.train.num_workers=0", "dataloader.test.num_workers=0"]
    cfg = apply_overrides(LazyConfig.load(str(path)), [*shapes_overrides, *workers])
    theirs = TRAIN_NODES[node] or model_zoo.get_config("common/train.py").train
    cfg.train = OmegaConf.create(theirs)
    model = instantiate(cfg.model)
    cfg.optimizer.params.model = model
    instantiate(cfg.optimizer)
    instantiate(cfg.lr_multiplier)
    batch = next(iter(instantiate(cfg.dataloader.train)))
    assert len(batch) == 16 and all("instances" in x for x in batch)
    evaluator, loader = instantiate(cfg.dataloader.evaluator), instantiate(cfg.dataloader.test)
    model.eval()
    evaluator.reset()
    with torch.no_grad():
        for inputs in loader:
            evaluator.process(inputs, model(inputs))
    assert "bbox" in evaluator.evaluate()


@pytest.fixture(scope="session")
def their_script(tmp_path_factory) -> Path:
    """detectron2's own ``tools/lazyconfig_train_net.py``, which its packages do not install."""
    beside = Path(detectron2.__file__).resolve().parents[1] / "tools" / "lazyconfig_train_net.py"
    if beside.is_file():  # a checkout
        return beside
    folder = tmp_path_factory.mktemp("detectron2")
    logging.getLogger("get_detectron2").setLevel(logging.INFO)
    try:
        tools = get_detectron2.with_build_tools(folder)
        archive = get_detectron2.download_archive(folder, tools)
        get_detectron2.verify_sha256(archive, get_detectron2.ARCHIVE_SHA256)
    except get_detectron2.UnavailableError as error:
        pytest.skip(f"detectron2's own script cannot be had: {error}")
    source = get_detectron2.unpack(archive, folder / "source")
    return source / "tools" / "lazyconfig_train_net.py"


@pytest.mark.slow
def test_detectron2s_own_script_scores_converted_official_weights(
    root, shared, tmp_path, their_script
):
    weights = tmp_path / "nanodet_plus_m_416.pth"
    convert_to_detectron2(str(shared / "weights" / "nanodet-plus-m_416.pth"), weights)
    coco = shared / "coco_tiny"
    command = [
        sys.executable,
        str(their_script),
        "--eval-only",
        "--config-file",
        str(root / "projects" / "nanodet_plus" / "configs" / "nanodet_plus_m_416.py"),
        f"train.init_checkpoint={weights}",
        f"train.output_dir={tmp_path}",
        "train.device=cpu",
        f"data.val.json={coco / 'annotations' / 'instances_val2017.json'}",
        f"data.val.images={coco / 'val2017'}",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (found,) = re.findall(r"'bbox', \{'AP': ([\d.]+)|'bbox': \{'AP': ([\d.]+)", done.stdout)
    assert float("".join(found)) == pytest.approx(36.115, abs=0.01)
