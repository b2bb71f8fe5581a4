"""The training script, started in several processes, and what they log."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

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

ONE_CORE_EACH = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


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
        env={**os.environ, "PYTHONPATH": path, **ONE_CORE_EACH, **env},
        capture_output=True,
        text=True,
        timeout=120,
    )


def losses(folder: Path) -> list[dict[str, float]]:
    lines = map(json.loads, (folder / "metrics.json").read_text().splitlines())
    return [{k: v for k, v in x.items() if "loss" in k} for x in lines if "total_loss" in x]
