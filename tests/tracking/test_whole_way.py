"""Drawn videos from the first pixel to HOTA: drawn, trained on, exported, tracked in, scored."""

from __future__ import annotations

import pytest

from nanodet_d2 import cli
from nanodet_d2.tracking import Settings
from tests.scripts import load_script
from tests.small_models import require


@pytest.mark.slow
def test_a_tracker_is_far_above_ids_by_the_nearest_box(root, tmp_path, capsys):
    """How far, over all clips: the benchmark."""
    for package in ("trackers", "trackeval"):
        pytest.importorskip(package)
    require("onnx", "onnxscript", "onnxslim", "onnxruntime")
    benchmark = load_script(root / "projects/nanodet_plus/benchmarks/tracking.py")
    clips = benchmark.drawn_clips(tmp_path, num_val=3)
    model = benchmark.trained_model(clips, tmp_path, "train.max_iter=650", 2)
    found = {
        name: benchmark.scores(model, clips, tmp_path / name, Settings(tracker=name))
        for name in ("nearest", "bytetrack")
    }
    assert found["nearest"]["DetA"] > 20  # the detector has learnt something
    assert found["bytetrack"]["HOTA"] > found["nearest"]["HOTA"] + 5
    assert found["bytetrack"]["IDSW"] < found["nearest"]["IDSW"]

    video, truth = clips.clips[0]
    arguments = ["track", str(model), "--input", str(video), "--explain", str(truth)]
    assert cli.main([*arguments, "--output", str(tmp_path / "explained")]) == 0
    out = capsys.readouterr().out
    assert "identity switches:" in out and "HOTA" in out
