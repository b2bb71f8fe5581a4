"""Pictures, videos and cameras are worked through, whatever fails on the way."""

from __future__ import annotations

import json
import os
import signal

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from nanodet_d2.runtime import Detections, sources
from nanodet_d2.runtime import run as running
from nanodet_d2.runtime.images import MAX_PIXELS
from nanodet_d2.runtime.results import Results
from nanodet_d2.runtime.sources import open_inputs

HEIGHT, WIDTH = 48, 64


class BrightDetector:
    """Finds the bright pixels of an image as one box of class "lamp", with score 0.9."""

    class_names = ("dog", "lamp")
    backend = "thresholds"

    def __call__(self, image):
        rows, columns = np.nonzero(image.min(axis=2) > 128)
        corners = (
            [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] if len(rows) else []
        )
        boxes = np.float32(corners).reshape(-1, 4)
        return Detections(
            xyxy=boxes,
            confidence=np.full(len(boxes), 0.9, np.float32),
            class_id=np.ones(len(boxes), np.int64),
            class_names=self.class_names,
            image_size=image.shape[:2],
        )


def picture(left: int | None = 10) -> np.ndarray:
    image = np.full((HEIGHT, WIDTH, 3), 30, np.uint8)
    if left is not None:
        image[20:30, left : left + 20] = 250
    return image


def write_video(path, count: int, code: str = "MJPG") -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*code), 10, (WIDTH, HEIGHT))
    assert writer.isOpened()
    for i in range(count):
        writer.write(picture(left=i))
    writer.release()


def frames_of(path) -> list[np.ndarray]:
    capture, frames = cv2.VideoCapture(str(path)), []
    while (read := capture.read())[0]:
        frames.append(read[1])
    return frames


def run(
    tmp_path, *inputs, detector=None, max_frames=None, max_pixels=MAX_PIXELS
) -> tuple[int, dict]:
    """Whether something was wrong, and the json that was written."""
    output = tmp_path / "out"
    opened = open_inputs([str(x) for x in inputs], output, max_pixels=max_pixels)
    done = running.detect_in(opened, detector or BrightDetector(), output, max_frames=max_frames)
    content = json.loads((output / "detections.json").read_text())
    assert (done.pictures, done.detections) == (
        len(content["images"]), len(content["annotations"])
    )  # fmt: skip
    return int(bool(done.problems)), content


def test_a_folder_of_pictures(tmp_path):
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    cv2.imwrite(str(folder / "a.png"), picture(10))
    cv2.imwrite(str(folder / "sub" / "ü b.png"), picture(30))
    cv2.imwrite(str(folder / "empty.png"), picture(None))
    status, content = run(tmp_path, folder)
    assert status == 0
    assert [x["file_name"] for x in content["images"]] == ["a.png", "empty.png", "sub/ü b.png"]
    assert content["categories"] == [{"id": 1, "name": "dog"}, {"id": 2, "name": "lamp"}]
    assert content["annotations"] == [
        {"id": 1, "image_id": 1, "category_id": 2, "bbox": [10, 20, 20, 10], "area": 200,
         "iscrowd": 0, "score": 0.9},
        {"id": 2, "image_id": 3, "category_id": 2, "bbox": [30, 20, 20, 10], "area": 200,
         "iscrowd": 0, "score": 0.9},
    ]  # fmt: skip
    drawn = cv2.imread(str(tmp_path / "out/pictures/sub/ü b.png"))
    assert drawn.shape == (HEIGHT, WIDTH, 3) and (drawn != picture(30)).any()
    assert (cv2.imread(str(tmp_path / "out/pictures/empty.png")) == picture(None)).all()


def test_the_json_serves_as_data_set_and_as_results(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), picture())
    run(tmp_path, tmp_path / "a.png")
    coco = COCO(str(tmp_path / "out/detections.json"))
    found = coco.loadRes([dict(x) for x in coco.dataset["annotations"]])
    assert found.getAnnIds() == [1]


def test_a_bad_picture_does_not_cost_the_others(tmp_path, caplog):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(b"not a picture")
    cv2.imwrite(str(folder / "b.png"), picture())
    status, content = run(tmp_path, folder)
    assert status == 1 and "a.jpg cannot be used" in caplog.text
    assert [x["file_name"] for x in content["images"]] == ["b.png"]


def test_a_video(tmp_path):
    write_video(tmp_path / "clip.avi", 12)
    status, content = run(tmp_path, tmp_path / "clip.avi")
    assert status == 0
    assert [x["frame"] for x in content["images"]] == list(range(12))
    assert {x["file_name"] for x in content["images"]} == {"clip.avi"}
    assert [round(x["bbox"][0]) for x in content["annotations"]] == list(range(12))
    written = frames_of(tmp_path / "out/clip.mp4")
    assert len(written) == 12 and written[0].shape == (HEIGHT, WIDTH, 3)
    fps = cv2.VideoCapture(str(tmp_path / "out/clip.mp4")).get(cv2.CAP_PROP_FPS)
    assert fps == pytest.approx(10)


def test_a_video_that_breaks_off_keeps_what_was_done(tmp_path, caplog):
    write_video(tmp_path / "whole.avi", 40)
    content = (tmp_path / "whole.avi").read_bytes()
    (tmp_path / "half.avi").write_bytes(content[: len(content) // 2])
    cv2.imwrite(str(tmp_path / "a.png"), picture())
    status, found = run(tmp_path, tmp_path / "half.avi", tmp_path / "a.png")
    count = sum("frame" in x for x in found["images"])
    assert status == 1 and 10 < count < 30
    assert f"half.avi breaks off after {count} of 40 frames" in caplog.text
    assert len(frames_of(tmp_path / "out/half.mp4")) == count
    assert found["images"][-1]["file_name"] == "a.png"  # the next input is still used


class Failing(BrightDetector):
    """Fails in the calls that are numbered in ``at``."""

    def __init__(self, *at: int):
        self.at = at
        self.calls = 0

    def __call__(self, image):
        self.calls += 1
        if self.calls in self.at:
            raise RuntimeError("the driver\nwent away")
        return super().__call__(image)


def test_a_frame_that_fails_does_not_cost_the_others(tmp_path, caplog):
    write_video(tmp_path / "clip.avi", 12)
    cv2.imwrite(str(tmp_path / "a.png"), picture())
    inputs = (tmp_path / "clip.avi", tmp_path / "a.png")
    status, content = run(tmp_path, *inputs, detector=Failing(4))
    assert status == 1 and "clip.avi, frame 3: RuntimeError: the driver went away" in caplog.text
    frames = [x.get("frame") for x in content["images"]]
    assert frames == [*range(3), *range(4, 12), None] and len(content["annotations"]) == 12
    assert len(frames_of(tmp_path / "out/clip.mp4")) == 12  # it keeps its time


def test_a_picture_that_fails_is_not_drawn(tmp_path, caplog):
    (tmp_path / "in").mkdir()
    for name in "ab":
        cv2.imwrite(str(tmp_path / f"in/{name}.png"), picture())
    status, content = run(tmp_path, tmp_path / "in", detector=Failing(1))
    assert status == 1 and "a.png: RuntimeError" in caplog.text
    assert [x["file_name"] for x in content["images"]] == ["b.png"]
    assert [x.name for x in (tmp_path / "out/pictures").iterdir()] == ["b.png"]


def test_a_source_that_fails_on_and_on_is_given_up(tmp_path, caplog):
    write_video(tmp_path / "clip.avi", 40)
    cv2.imwrite(str(tmp_path / "a.png"), picture())
    inputs = (tmp_path / "clip.avi", tmp_path / "a.png")
    status, content = run(tmp_path, *inputs, detector=Failing(2, 3, *range(5, 25)))
    assert status == 1 and "clip.avi: given up after 20 failures in a row" in caplog.text
    assert [x.get("frame") for x in content["images"]] == [0, 3, None]
    assert caplog.text.count("the driver went away") == 5 and "17 more frames failed" in caplog.text
    assert len(frames_of(tmp_path / "out/clip.mp4")) == 24


def test_what_was_done_is_on_disk_at_any_time(tmp_path):
    """A line for each picture, so that a process that is killed loses nothing."""
    lines: list[list[dict]] = []

    class Watching(BrightDetector):
        def __call__(self, image):
            text = (tmp_path / "out/detections.jsonl").read_text()
            lines.append([json.loads(x) for x in text.splitlines()])
            assert not (tmp_path / "out/detections.json").exists()  # of the earlier run
            return super().__call__(image)

    write_video(tmp_path / "clip.avi", 3)
    for _ in range(2):
        lines.clear()
        assert run(tmp_path, tmp_path / "clip.avi", detector=Watching())[0] == 0
        assert [len(x) for x in lines] == [0, 1, 2]
    assert lines[2][0]["file_name"] == "clip.avi" and lines[2][0]["frame"] == 0
    (found,) = lines[2][0]["detections"]
    assert (found["category"], found["category_id"], found["score"]) == ("lamp", 2, 0.9)


class FullDisk:
    """A raw file that takes five bytes more once there are two lines, then nothing."""

    def __init__(self, file):
        self.file, self.lines = file, 0

    def write(self, line):
        self.lines += 1
        return self.file.write(line if self.lines <= 2 else line[:5])

    def __getattr__(self, name):
        return getattr(self.file, name)


def test_a_full_disk_leaves_whole_lines(tmp_path, monkeypatch, caplog):
    class Short(Results):
        def __init__(self, *args):
            super().__init__(*args)
            self._file = FullDisk(self._file)

    monkeypatch.setattr(running, "Results", Short)
    write_video(tmp_path / "clip.avi", 30)
    status, content = run(tmp_path, tmp_path / "clip.avi")
    assert status == 1 and "No space left on device" in caplog.text
    assert len(content["images"]) == 2 and "given up after 20" in caplog.text
    assert len((tmp_path / "out/detections.jsonl").read_text().splitlines()) == 2


def test_no_picture_gives_a_whole_file(tmp_path):
    results = Results(["dog"], tmp_path)
    results.close()
    expected = {"categories": [{"id": 1, "name": "dog"}], "images": [], "annotations": []}
    assert json.loads((tmp_path / "detections.json").read_text()) == expected


def test_sigterm_ends_everything_properly(tmp_path, caplog):
    class Terminated(BrightDetector):
        calls = 0

        def __call__(self, image):
            self.calls += 1
            if self.calls == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().__call__(image)

    handler = signal.getsignal(signal.SIGTERM)
    write_video(tmp_path / "clip.avi", 12)
    cv2.imwrite(str(tmp_path / "a.png"), picture())
    inputs = (tmp_path / "clip.avi", tmp_path / "a.png")
    status, content = run(tmp_path, *inputs, detector=Terminated())
    assert status == 0 and "Stopped by SIGTERM" in caplog.text
    assert [x.get("frame") for x in content["images"]] == [0, 1, 2]
    assert len(frames_of(tmp_path / "out/clip.mp4")) == 3
    assert signal.getsignal(signal.SIGTERM) == handler


def test_a_second_sigterm_is_not_held_back():
    received = []
    before = signal.signal(signal.SIGTERM, lambda *_: received.append(1))
    try:
        with running.set_by_sigterm() as stop:
            assert not stop.is_set()
            for count in (0, 1):
                os.kill(os.getpid(), signal.SIGTERM)
                assert stop.is_set() and len(received) == count
    finally:
        signal.signal(signal.SIGTERM, before)


def test_max_pixels(tmp_path, caplog):
    cv2.imwrite(str(tmp_path / "a.png"), picture())
    assert run(tmp_path, tmp_path / "a.png", max_pixels=HEIGHT * WIDTH)[0] == 0
    assert run(tmp_path, tmp_path / "a.png", max_pixels=HEIGHT * WIDTH - 1)[0] == 1
    assert "64 x 48 pixels declared, max_pixels is 3071" in caplog.text


class FakeCamera:
    """Gives five pictures, then what ``after`` says: no more, or Ctrl+C."""

    after: type[BaseException] | None = None

    def __init__(self, source):
        assert source == 0
        self.left = 5

    def isOpened(self):  # noqa: N802
        return True

    def get(self, key):
        return 30.0 if key == cv2.CAP_PROP_FPS else -1.0

    def read(self):
        self.left -= 1
        if self.left < 0 and self.after:
            raise self.after
        return self.left >= 0, picture()

    def release(self):
        self.left = -1


@pytest.mark.parametrize("name", ["0", "camera:0"])
@pytest.mark.parametrize("after, status", [(None, 1), (KeyboardInterrupt, 0)])
def test_a_camera(tmp_path, monkeypatch, caplog, name, after, status):
    monkeypatch.setattr(sources.cv2, "VideoCapture", FakeCamera)
    monkeypatch.setattr(FakeCamera, "after", after)
    found, content = run(tmp_path, name)
    monkeypatch.undo()
    assert found == status and len(content["images"]) == 5
    assert ("camera 0 gave no more pictures after 5" in caplog.text) == (after is None)
    assert len(frames_of(tmp_path / "out/camera0.mp4")) >= 5


def test_a_slow_camera_is_written_in_real_time(tmp_path, monkeypatch):
    monkeypatch.setattr(sources.cv2, "VideoCapture", FakeCamera)
    clock = iter(range(100))
    monkeypatch.setattr(sources.time, "monotonic", lambda: next(clock))  # a second for each frame
    run(tmp_path, "0")
    monkeypatch.undo()
    assert len(frames_of(tmp_path / "out/camera0.mp4")) == 5 * 30


@pytest.mark.parametrize("told", [-1.0, 0.0, float("nan"), float("inf"), 90000.0])
def test_a_rate_that_cannot_be_is_not_believed(tmp_path, monkeypatch, told):
    monkeypatch.setattr(sources.cv2, "VideoCapture", FakeCamera)
    monkeypatch.setattr(FakeCamera, "get", lambda *_: told)
    clock = iter(range(100))
    monkeypatch.setattr(sources.time, "monotonic", lambda: next(clock))  # a second for each frame
    found, content = run(tmp_path, "0")
    monkeypatch.undo()
    assert found == 1 and len(content["images"]) == 5
    assert len(frames_of(tmp_path / "out/camera0.mp4")) == 5 * sources.DEFAULT_FPS


def test_max_frames(tmp_path):
    write_video(tmp_path / "clip.avi", 12)
    status, content = run(tmp_path, tmp_path / "clip.avi", max_frames=3)
    assert status == 0 and len(content["images"]) == 3


def test_what_cannot_be_used_is_refused(tmp_path):
    (tmp_path / "text.mp4").write_text("not a video")
    (tmp_path / "folder").mkdir()
    for name, message in [
        ("77", "camera 77 does not open"),
        ("camera:77", "camera 77 does not open"),
        (tmp_path / "text.mp4", "text.mp4 is no video that OpenCV can read"),
        (tmp_path / "none.jpg", "none.jpg is neither a file, a folder nor the index of a camera"),
        (tmp_path / "folder", "no pictures in"),
    ]:
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            run(tmp_path, name)
        assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten(tmp_path):
    for folder in ("a", "b", "out/pictures"):
        (tmp_path / folder).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / folder / "x.png"), picture())
    write_video(tmp_path / "out" / "clip.mp4", 2, "mp4v")
    for inputs in (["a", "b"], ["out/pictures"], ["out/clip.mp4"]):
        with pytest.raises(ValueError, match="would be overwritten"):
            run(tmp_path, *(tmp_path / x for x in inputs))
    assert not (tmp_path / "out/detections.jsonl").exists()
