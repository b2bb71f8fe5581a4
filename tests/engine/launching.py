"""Trainings in several processes, and what they log."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from detectron2.engine import default_argument_parser

from nanodet_d2.engine import launch, main
from tests.engine.small_training import SMALL
from tests.forking import forks

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "projects" / "nanodet_plus" / "train_net.py"
CONFIG = ROOT / "projects" / "nanodet_plus" / "configs" / "demo_shapes.py"
OVERRIDES = [
    *SMALL,
    "dataloader.train.total_batch_size=6",
    "model.aux_detach_iter=4",
    "model.freeze_norm=true",
    "train.eval_period=0",
    "train.max_iter=6",
]
ONE_CORE_EACH = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
PATIENCE_S = 300  # far beyond what any of these takes on a machine that is busy


@dataclasses.dataclass(frozen=True)
class Done:
    """What has ended: 0 if all of its processes did well, and all that they said."""

    returncode: int
    output: str

    def check(self) -> None:
        assert self.returncode == 0, self.output[-6000:]


def ranks(count: int, *arguments: str, patch: Callable[[], Any] | None = None) -> Done:
    """What the training script does, in so many processes; in one without a process group.

    As under torchrun, but for the seconds in which that and each process import what they need:
    the store outlives the processes, and as soon as one fails the others are ended.

    Args:
        count: processes.
        arguments: of the training script, but for the config.
        patch: is called in each process first.
    """
    env, store = dict(ONE_CORE_EACH), None
    if count > 1:
        store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        env |= {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
        env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)}
        env |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}
    with tempfile.TemporaryDirectory() as folder:
        logs = [Path(folder) / str(rank) for rank in range(count)]
        processes = []
        for rank, log in enumerate(logs):
            own = {"RANK": str(rank), "LOCAL_RANK": str(rank)} if count > 1 else {}
            args = (arguments, {**env, **own}, log, patch)
            processes.append(forks.Process(target=_run_rank, args=args))
            processes[-1].start()
        returncode = _wait(processes)
        return Done(returncode, "".join(log.read_text() for log in logs if log.is_file()))


def _run_rank(
    arguments: Sequence[str], env: dict[str, str], log: Path, patch: Callable[[], Any] | None
) -> None:
    with log.open("wb") as file:
        for output in (1, 2):
            os.dup2(file.fileno(), output)
    os.environ.update(env)
    torch.set_num_threads(1)
    try:
        if patch is not None:
            patch()
        launch(
            main,
            default_argument_parser().parse_args(["--config-file", str(CONFIG), *arguments]),
        )
    except BaseException:
        sys.excepthook(*sys.exc_info())  # torch's, which tells the rank
        sys.exit(1)


def _wait(processes: Sequence[Any]) -> int:
    """Wait for all; when one has failed, torchrun ends the others."""
    end = time.monotonic() + PATIENCE_S
    while any(process.is_alive() for process in processes):
        codes = [process.exitcode for process in processes]
        if time.monotonic() > end or any(codes):
            for process in processes:
                with contextlib.suppress(ProcessLookupError):
                    process.terminate()
                process.join(30)
                process.kill()
        time.sleep(0.05)
    return max(abs(process.exitcode) for process in processes)


def torchrun(processes: int, *arguments: str, restarts: int = 0, script: Path = SCRIPT) -> Done:
    """Run the training script by torchrun."""
    options = [f"--nproc_per_node={processes}", f"--max_restarts={restarts}"]
    options += ["--rdzv_backend=c10d", f"--rdzv_endpoint=127.0.0.1:{free_port()}"]
    options += ["--monitor_interval=0.1"]
    command = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", *options]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [*command, str(script), "--config-file", str(CONFIG), *arguments],
        env={**os.environ, "PYTHONPATH": path, **ONE_CORE_EACH},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE_S,
    )
    return Done(done.returncode, done.stdout)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def losses(folder: Path) -> list[dict[str, float]]:
    lines = map(json.loads, (folder / "metrics.json").read_text().splitlines())
    return [{k: v for k, v in x.items() if "loss" in k} for x in lines if "total_loss" in x]
