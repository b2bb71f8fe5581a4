"""The official weights score the reference's AP on real images, through the command line."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


@pytest.mark.parametrize("size, ap", [(416, 36.1), (320, 31.1)])
def test_average_precision(shared, root, tmp_path, size, ap):
    coco = shared / "coco_tiny"
    command = [
        sys.executable,
        "projects/nanodet_plus/train_net.py",
        "--config-file",
        f"projects/nanodet_plus/configs/nanodet_plus_m_{size}.py",
        "--eval-only",
        f"train.init_checkpoint={shared / 'weights' / f'nanodet-plus-m_{size}.pth'}",
        f"train.output_dir={tmp_path}",
        "dataloader.test.num_workers=1",
        f"data.val.json={coco / 'annotations' / 'instances_val2017.json'}",
        f"data.val.images={coco / 'val2017'}",
    ]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "copypaste: AP,AP50,AP75,APs,APm,APl" in done.stdout
    found = json.loads((tmp_path / "evaluation.json").read_text())["bbox"]
    golden = json.loads((shared / "golden" / "coco_tiny_val.json").read_text())
    expected = golden[f"nanodet-plus-m_{size}"]["metrics"]
    assert found["AP"] == pytest.approx(ap, abs=0.1)
    assert {k: found[k] for k in expected} == pytest.approx(expected, abs=0.3)
