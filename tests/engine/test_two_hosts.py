"""A training on two hosts, one of which dies, ends as one that runs alone."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch.distributed as dist

from tests.engine.launching import CONFIG, ONE_CORE_EACH, OVERRIDES, ROOT, SCRIPT, losses, ranks
from tests.engine.two_hosts import INSIDE, NOT_ALLOWED

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not dist.is_gloo_available(), reason="torch has no Gloo here"),
    pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare, of util-linux"),
]
STEPS = 30
OPTIONS = [*OVERRIDES, f"train.max_iter={STEPS}", "train.checkpointer.period=2"]


@pytest.fixture(scope="module")
def alone(shapes_overrides, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    ranks(1, *OPTIONS, *shapes_overrides, f"train.output_dir={folder}").check()
    return folder


@pytest.mark.parametrize(
    "fault",
    ["the second host is killed", "the second host is unplugged", "the first host is killed"],
)
def test_a_host_dies(alone, shapes_overrides, tmp_path, fault):
    output = tmp_path / "out"
    run = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--nnodes=2"]
    run += ["--nproc_per_node=1", "--max_restarts=3", "--monitor_interval=0.1", "--rdzv_id=7"]
    run += ["--rdzv_backend=c10d", "--rdzv_endpoint=host1:29400"]
    run += [str(SCRIPT), "--config-file", str(CONFIG), *OPTIONS, *shapes_overrides]
    run += [f"train.output_dir={output}"]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    hosts = [sys.executable, str(Path(__file__).with_name("two_hosts.py"))]
    done = subprocess.run(
        [*INSIDE, *hosts, fault, str(tmp_path), str(output), *run],
        env={
            **os.environ,
            "PYTHONPATH": path,
            **ONE_CORE_EACH,
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",  # else torchrun lets no other host in
        },
        capture_output=True,
        text=True,
        timeout=1000,
    )
    if done.returncode == NOT_ALLOWED or "unshare:" in done.stderr:
        pytest.skip(f"no network namespaces here: {(done.stdout + done.stderr).strip()[-200:]}")
    logs = "".join(file.read_text() for file in sorted(tmp_path.glob("host*.log")))
    assert done.returncode == 0, done.stderr[-3000:] + logs[-6000:]
    resumed = [int(x) for x in re.findall(r"Resumed after (\d+) steps", logs)]
    assert resumed and all(0 < x < STEPS for x in resumed), logs[-6000:]
    expected, found = losses(alone), losses(output)
    assert len(found) == len(expected) == STEPS
    for i in range(STEPS):
        assert found[i] == pytest.approx(expected[i], rel=1e-3)
