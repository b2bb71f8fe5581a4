"""Videos, folders and cameras are tracked in, and what was found is written in each form."""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from nanodet_d2 import cli
from nanodet_d2.cli.verbs import track
from nanodet_d2.runtime import sources
from nanodet_d2.runtime.sources import open_inputs
from nanodet_d2.tracking import Settings
from nanodet_d2.tracking.areas import Areas, Line
from nanodet_d2.tracking.follow import Wishes
from nanodet_d2.tracking.mot import read_mot
from nanodet_d2.tracking.run import track_in
from tests.blocking import run_without
from tests.runtime.test_alone import BLOCKED
from tests.runtime.test_run import BrightDetector, FakeCamera, frames_of, picture, write_video

NEAREST = Settings(tracker="nearest")


def run(tmp_path, *inputs, every=1, detector=None, **wishes):
    """What was done, and the json that was written."""
    output = tmp_path / "out"
    opened = open_inputs([str(x) for x in inputs], output, every=every)
    wish = Wishes(settings=NEAREST, **wishes)
    done = track_in(opened, detector or BrightDetector(), output, wish)
    return done, json.loads((output / "tracks.json").read_text())


def test_a_video(tmp_path):
    write_video(tmp_path / "clip.avi", 12)
    done, content = run(tmp_path, tmp_path / "clip.avi")
    assert done.problems == [] and content["videos"] == [{"id": 1, "name": "clip"}]
    assert [x["frame_id"] for x in content["images"]] == list(range(12))
    assert {x["video_id"] for x in content["images"]} == {1}
    (one, *_) = content["annotations"]
    assert {k: one[k] for k in ("id", "image_id", "video_id", "instance_id", "category_id")} == {
        "id": 1, "image_id": 1, "video_id": 1, "instance_id": 1, "category_id": 2
    }  # fmt: skip
    assert {x["instance_id"] for x in content["annotations"]} == {1}
    table = read_mot(tmp_path / "out/mot/clip.txt")
    assert table.frames.tolist() == list(range(1, 13)) and set(table.ids) == {1}
    assert np.abs(table.boxes[:, 0] - np.arange(12)).max() <= 1  # it moves by a pixel a frame
    written = frames_of(tmp_path / "out/clip.mp4")
    assert len(written) == 12 and written[0].shape == (48, 64, 3)
    (video,) = done.videos
    assert (video["frames"], video["dropped"], video["tracks"]) == (12, 0, 1)
    assert COCO(str(tmp_path / "out/tracks.json")).getAnnIds() == list(range(1, 13))


def test_every_third_frame(tmp_path):
    """Frames keep their numbers, and the video its length."""
    write_video(tmp_path / "clip.avi", 12)
    done, content = run(tmp_path, tmp_path / "clip.avi", every=3)
    assert [x["frame_id"] for x in content["images"]] == [0, 3, 6, 9]
    assert read_mot(tmp_path / "out/mot/clip.txt").frames.tolist() == [1, 4, 7, 10]
    capture = cv2.VideoCapture(str(tmp_path / "out/clip.mp4"))
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(10 / 3, rel=1e-2)
    assert done.problems == [] and done.videos[0]["frames"] == 4


def test_folders_of_pictures_are_videos(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(4):
            cv2.imwrite(str(tmp_path / name / f"{name}{i}.png"), picture(10 + i))
    (tmp_path / "a" / "a2.png").write_bytes(b"not a picture")
    done, content = run(tmp_path, tmp_path / "a", tmp_path / "b")
    assert [x["name"] for x in content["videos"]] == ["a", "b"]
    frames = [(x["video_id"], x["frame_id"]) for x in content["images"]]
    assert frames == [(1, 0), (1, 1), (1, 3), (2, 0), (2, 1), (2, 2), (2, 3)]
    # Ids of instances go on from one video to the next, those of MOT text begin anew.
    assert [x["instance_id"] for x in content["annotations"]] == [1] * 3 + [2] * 4
    assert set(read_mot(tmp_path / "out/mot/b.txt").ids) == {1}
    assert len(done.problems) == 1 and "a2.png cannot be used" in done.problems[0]
    assert (tmp_path / "out/pictures/b3.png").is_file()


def test_files_of_the_same_name_do_not_meet(tmp_path):
    for name in ("x", "y"):
        (tmp_path / name / "clip").mkdir(parents=True)
        cv2.imwrite(str(tmp_path / name / "clip" / f"{name}.png"), picture())
        cv2.imwrite(str(tmp_path / name / "clip" / f"{name}2.png"), picture())
    done, _ = run(tmp_path, tmp_path / "x/clip", tmp_path / "y/clip")
    assert [x["name"] for x in done.videos] == ["clip", "clip_2"]


def test_counts(tmp_path):
    write_video(tmp_path / "clip.avi", 30)
    line = Line("gate", (24.5, 48), (24.5, 0))  # upwards: in is to its left
    done, _ = run(tmp_path, tmp_path / "clip.avi", areas=Areas(lines=(line,)), interval=2.0)
    # The lamp's centre goes from 10 to 39, to the right.
    assert done.videos[0]["counts"] == {"gate": {"lamp": {"in": 0, "out": 1, "inside": 0}}}
    with open(tmp_path / "out/mot/clip_counts.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(x["seconds"], x["out"]) for x in rows] == [("2.0", "1"), ("2.9", "1")]


def test_what_is_not_wanted_is_not_written(tmp_path):
    write_video(tmp_path / "clip.avi", 9)
    done, content = run(tmp_path, tmp_path / "clip.avi", draw=False, max_frames=4)
    assert not (tmp_path / "out/clip.mp4").exists() and len(content["images"]) == 4
    assert done.problems == []


def test_a_frame_that_fails_does_not_cost_the_others(tmp_path, caplog):
    class Moody(BrightDetector):
        calls = 0

        def __call__(self, image):
            self.calls += 1
            if self.calls == 3:
                raise RuntimeError("no mood")
            return super().__call__(image)

    write_video(tmp_path / "clip.avi", 8)
    done, content = run(tmp_path, tmp_path / "clip.avi", detector=Moody())
    assert done.problems == ["clip.avi, frame 2: RuntimeError: no mood"]
    assert [x["frame_id"] for x in content["images"]] == [0, 1, 3, 4, 5, 6, 7]
    assert len(frames_of(tmp_path / "out/clip.mp4")) == 8  # else it would lose its time


def test_a_detector_that_always_fails_is_given_up(tmp_path):
    class Broken(BrightDetector):
        def __call__(self, image):
            raise RuntimeError("no mood")

    write_video(tmp_path / "clip.avi", 60)
    write_video(tmp_path / "next.avi", 3)
    done, content = run(tmp_path, tmp_path / "clip.avi", tmp_path / "next.avi", detector=Broken())
    assert any("given up after 20 failures in a row" in x for x in done.problems)
    assert any("15 more frames failed" in x for x in done.problems)
    assert content["images"] == [] and [x["name"] for x in done.videos] == ["clip", "next"]


def test_a_camera(tmp_path, monkeypatch):
    monkeypatch.setattr(sources.cv2, "VideoCapture", FakeCamera)
    done, content = run(tmp_path, "camera:0")
    monkeypatch.undo()
    (video,) = done.videos
    assert video["name"] == "camera0" and video["frames"] + video["dropped"] == 5
    assert len(content["images"]) == video["frames"] >= 1
    assert done.problems == ["camera 0 gave no more pictures after 5"]


def test_what_is_refused(tmp_path):
    write_video(tmp_path / "clip.avi", 2)
    for every in (0, -1):
        with pytest.raises(ValueError, match=f"every {every} frames; allowed: 1 or more"):
            run(tmp_path, tmp_path / "clip.avi", every=every)
    for name in ("interval", "frame_rate", "max_frames"):
        with pytest.raises(ValueError, match=f"{name} 0; allowed: above 0"):
            Wishes(**{name: 0})


@pytest.fixture
def clip(tmp_path) -> Path:
    write_video(tmp_path / "clip.avi", 6)
    return tmp_path / "clip.avi"


def test_the_command(small_models, clip, tmp_path, capsys):
    path = small_models.file("onnx")
    output = tmp_path / "out"
    arguments = ["track", str(path), "--input", str(clip), "--output", str(output)]
    code = cli.main([*arguments, "--tracker", "nearest", "--line", "gate:0,0,60,40", "--json"])
    facts = json.loads(capsys.readouterr().out)
    assert code == 0 and facts["problems"] == [] and facts["videos"][0]["frames"] == 6
    assert "counts" in facts["videos"][0] and (output / "mot/clip_counts.csv").is_file()
    assert cli.main([*arguments, "--tracker", "nearest", "--no-video"]) == 0
    assert "clip: 6 frames" in capsys.readouterr().out


@pytest.mark.parametrize(
    "more, message",
    [
        (["--tracker", "deepsort"], "tracker 'deepsort'; allowed"),
        (["--low", "0.6", "--high", "0.5"], "low, high, start"),
        (["--line", "gate"], "is no line or zone"),
        (["--every", "0"], "every 0 frames; allowed"),
        (["--gt", "a.txt", "--explain", "a.txt"], "give --gt or --explain"),
    ],
)
def test_the_command_refuses(clip, tmp_path, capsys, more, message):
    arguments = ["track", "model.onnx", "--input", str(clip), "--output", str(tmp_path / "out")]
    assert cli.main([*arguments, "--tracker", "nearest", *more]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "given, expected",
    [
        ([], (0.3, 0.45, 0.55)),
        (["--start", "0.2"], (0.2, 0.2, 0.2)),
        (["--high", "0.6"], (0.3, 0.6, 0.6)),
        (["--low", "0.6"], (0.6, 0.6, 0.6)),
        (["--high", "0.05"], (0.05, 0.05, 0.55)),
    ],
)
def test_thresholds_follow_those_that_are_given(given, expected):
    parser = argparse.ArgumentParser()
    track.add_arguments(parser)
    settings = track._settings(parser.parse_args(["model.onnx", "--input", "x", *given]))
    assert (settings.low, settings.high, settings.start) == expected


TRACK = """
from nanodet_d2.cli import main
code = main(["track", sys.argv[1], "--input", sys.argv[2], "--output", sys.argv[3],
             "--tracker", "nearest", "--tiles", "40"])
there = {"torch", "detectron2"} & {name for name, module in sys.modules.items() if module}
sys.exit(f"imported {there}" if there else code)
"""


def test_it_needs_neither_torch_nor_the_extra(small_models, clip, tmp_path):
    blocked = (*BLOCKED, "scipy", "trackers", "supervision", "trackeval")
    path = small_models.file("onnx")
    done = run_without(blocked, TRACK, str(path), str(clip), str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out/mot/clip.txt").is_file()
