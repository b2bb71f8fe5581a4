"""Trainings of several processes (torchrun, Gloo) end as those of one."""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch.distributed as dist

from nanodet_d2.checkpoint import read_file
from nanodet_d2.engine import launch

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "projects" / "nanodet_plus" / "train_net.py"
CONFIG = ROOT / "projects" / "nanodet_plus" / "configs" / "demo_shapes.py"
OVERRIDES = [
    "data.input_size=[64,64]",
    "dataloader.train.total_batch_size=6",
    "dataloader.train.num_workers=0",
    "dataloader.test.num_workers=0",
    "model.aux_detach_iter=4",
    "model.neck.out_channels=32",
    "model.freeze_norm=true",
    "model.score_thresh=0.0",
    "train.eval_period=0",
    "train.log_period=1",
    "train.max_iter=6",
    "train.device=cpu",
    "train.seed=1",
]

pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="torch has no Gloo here")


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def torchrun(processes: int, *arguments: str, restarts: int = 0, script: Path = SCRIPT, **env):
    """Run the training script, in one process without torchrun."""
    command = [sys.executable, "-W", "ignore"]
    if processes > 1:
        options = [f"--nproc_per_node={processes}", f"--max_restarts={restarts}"]
        options += ["--rdzv_backend=c10d", f"--rdzv_endpoint=127.0.0.1:{free_port()}"]
        options += ["--monitor_interval=0.1"]
        command += ["-m", "torch.distributed.run", *options]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [*command, str(script), "--config-file", str(CONFIG), *arguments],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **env},
        capture_output=True,
        text=True,
        timeout=120,
    )


def losses(folder: Path) -> list[dict[str, float]]:
    lines = map(json.loads, (folder / "metrics.json").read_text().splitlines())
    return [{k: v for k, v in x.items() if "loss" in k} for x in lines if "total_loss" in x]


@pytest.fixture(scope="module")
def alone(shapes_overrides, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    done = torchrun(1, *OVERRIDES, *shapes_overrides, f"train.output_dir={folder}")
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    return folder


@pytest.mark.parametrize("processes", [2, 3])
def test_together_as_alone(alone, shapes_overrides, tmp_path, processes):
    """Whole trainings: each step's batch is the same, and the 8 test images are shared out."""
    output = f"train.output_dir={tmp_path}"
    done = torchrun(processes, *OVERRIDES, *shapes_overrides, output)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    expected, found = losses(alone), losses(tmp_path)
    assert len(expected) == len(found) == 6
    assert found[0] == pytest.approx(expected[0], rel=1e-5)  # one step
    for i in range(6):  # later ones add up the rounding
        assert found[i] == pytest.approx(expected[i], rel=1e-3)
    a, b = (read_file(str(x / "model_final.pth"))["model"] for x in (alone, tmp_path))
    for name, value in a.items():
        assert (value - b[name]).abs().max() <= 1e-3 * max(float(value.abs().max()), 1e-3), name

    weights = f"train.init_checkpoint={alone / 'model_final.pth'}"
    output = f"train.output_dir={tmp_path / 'evaluated'}"
    done = torchrun(processes, "--eval-only", *OVERRIDES, *shapes_overrides, weights, output)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    expected = json.loads((alone / "evaluation.json").read_text())
    assert json.loads((tmp_path / "evaluated" / "evaluation.json").read_text()) == expected


def test_fewer_images_than_ranks(shapes, tmp_path):
    """One image and three ranks: two ranks have nothing to evaluate, one image has no box."""
    content = json.loads(Path(shapes["val"]["json"]).read_text())
    content["images"] = content["images"][:1]
    content["annotations"] = []
    file = tmp_path / "one.json"
    file.write_text(json.dumps(content))
    names = [f"data.{s}.json={file}" for s in ("train", "val")]
    names += [f"data.{s}.images={shapes['val']['images']}" for s in ("train", "val")]
    done = torchrun(3, *OVERRIDES, *names, f"train.output_dir={tmp_path / 'out'}")
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    assert len(losses(tmp_path / "out")) == 6


FAILS_ONCE = """
import os, sys, runpy
from detectron2.engine import HookBase
import nanodet_d2
from nanodet_d2.engine import trainer

whole_step = trainer.Trainer.run_step
def step(self):
    first = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
    if first and self.iter == 4 and os.environ["RANK"] == "1":
        os.kill(os.getpid(), 9)
    whole_step(self)
trainer.Trainer.run_step = step
sys.argv[0] = {script!r}
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_an_elastic_restart_resumes(alone, shapes_overrides, tmp_path):
    """Rank 1 is killed in its fifth step; torchrun starts both again."""
    script = tmp_path / "fails_once.py"
    script.write_text(FAILS_ONCE.format(script=str(SCRIPT)))
    folder = f"train.output_dir={tmp_path / 'out'}"
    options = [*OVERRIDES, *shapes_overrides, folder, "train.checkpointer.period=2"]
    done = torchrun(2, *options, restarts=1, script=script)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    assert "Restart 1 by torchrun: the training is resumed" in done.stdout + done.stderr
    assert re.search(r"Resumed after [2-4] steps", done.stdout + done.stderr)
    expected, found = losses(alone), losses(tmp_path / "out")
    assert len(found) == 6
    for i in range(6):
        assert found[i] == pytest.approx(expected[i], rel=1e-3)


def test_two_ways_at_once_and_absent_gpus_are_refused(monkeypatch):
    args = argparse.Namespace(num_gpus=99, num_machines=1)
    with pytest.raises(ValueError, match="--num-gpus 99; found .* GPUs. .*torchrun"):
        launch(print, args)
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv("MASTER_PORT", "1")
    with pytest.raises(ValueError, match="under torchrun allowed: --nproc_per_node"):
        launch(print, args)
