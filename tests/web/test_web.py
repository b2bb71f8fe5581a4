"""The browser demo: its modules against the Python code, and the page in headless Chromium."""

from __future__ import annotations

import dataclasses
import functools
import http.server
import json
import os
import re
import shutil
import subprocess
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from nanodet_d2.data.images import read_image
from nanodet_d2.export.job import Job
from nanodet_d2.export.loading import load_model
from nanodet_d2.export.writer import export
from nanodet_d2.predictor import Detector
from nanodet_d2.runtime import Detections, Tiles
from nanodet_d2.runtime.decode_numpy import detect, make_priors
from nanodet_d2.runtime.metadata import InputDescription
from nanodet_d2.runtime.preprocess import normalize, stretch
from nanodet_d2.runtime.tiles import merge, slices
from tests.scripts import load_script

HERE = Path(__file__).parent
WEB = HERE.parents[1] / "projects" / "nanodet_plus" / "web"
CONFIG = HERE.parents[1] / "projects/nanodet_plus/configs/nanodet_plus_m_416.py"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PICTURE = "coco_tiny/val2017/000000005001.jpg"
STRIDES, REG_MAX = (8, 16, 32, 64), 7


@pytest.fixture(scope="module")
def node() -> str:
    found = shutil.which("node")
    if not found:
        pytest.skip("node is not installed")
    return found


@pytest.fixture(scope="module")
def browser() -> str:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not found:
        pytest.skip(f"no browser: looked for {', '.join(BROWSERS)}")
    if not (WEB / "node_modules").is_dir():
        pytest.skip("the packages of the page are not installed: run `make web`")
    return found


def run(*command: str, **environment: str) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **environment}, timeout=300
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


def image_case(rng, size, input_size, order) -> dict:
    image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    mean, std = (103.53, 116.28, 123.675), (57.375, 57.12, 58.395)
    described = InputDescription("data", *input_size, False, order, mean, std)
    stretched = stretch(image, *input_size)
    rgba = cv2.cvtColor(image, cv2.COLOR_BGR2RGBA)
    return {
        "image": rgba.ravel().tolist(),
        "height": size[0],
        "width": size[1],
        "input": {**vars(described)},
        "rgb": stretched[..., ::-1].ravel().tolist(),
        "tensor": normalize(stretched, described).ravel().tolist(),
    }


def output_case(rng, input_size, image_size, num_classes, *, nms="plain") -> dict:
    height, width = input_size
    count = len(make_priors(height, width, STRIDES))
    scores = rng.random((count, num_classes), dtype=np.float32) ** 6
    raw = np.hstack([scores, 3 * rng.standard_normal((count, 4 * (REG_MAX + 1)))])
    raw = raw.astype(np.float32)
    limits = {"score_threshold": 0.05, "nms_threshold": 0.6, "max_detections": 100}
    votes = {"vote_threshold": 0.65, "vote_power": 8}
    asked = votes if nms == "voting" else {}
    boxes, scores, classes = detect(raw, STRIDES, REG_MAX, height, width, **limits, **asked)
    scale = np.array([image_size[1] / width, image_size[0] / height] * 2)
    return {
        "raw": raw.ravel().tolist(),
        "metadata": {
            "input": {"height": height, "width": width},
            "strides": STRIDES,
            "reg_max": REG_MAX,
            "class_names": [str(i) for i in range(num_classes)],
            **limits,
            "nms": nms,
            **votes,
        },
        "image": {"height": image_size[0], "width": image_size[1]},
        "boxes": (boxes * scale).tolist(),
        "scores": scores.tolist(),
        "classes": classes.tolist(),
    }


def slice_case(height: int, width: int, tiles: Tiles) -> dict:
    places = slices(height, width, tiles).tolist()
    return {"height": height, "width": width, "tiles": dataclasses.asdict(tiles), "places": places}


def merge_case(rng) -> dict:
    """Boxes around the same few objects in all slices, as each of them shows them."""
    image_size, tiles = (300, 420), Tiles(size=160, overlap=0.3)
    places = slices(*image_size, tiles)
    objects = rng.uniform(0, [380, 260], (25, 2))
    objects = np.hstack([objects, objects + rng.uniform(10, 200, (25, 2))])
    found = []
    for place in places:
        boxes = objects + rng.normal(0, 1, objects.shape)
        boxes = np.clip(boxes, np.tile(place[:2], 2), np.tile(place[2:], 2))
        boxes = boxes[((boxes[:, 2:] - boxes[:, :2]) > 4).all(axis=1)] - np.tile(place[:2], 2)
        scores = np.sort(rng.uniform(0.05, 1, len(boxes)))[::-1]
        found.append(
            Detections(
                xyxy=boxes.astype(np.float32),
                confidence=scores.astype(np.float32),
                class_id=rng.integers(0, 2, len(boxes)),
                class_names=("a", "b"),
                image_size=(160, 160),
            )
        )
    kept = merge(found, places, image_size, 0.6)
    return {
        "found": [
            [
                {"box": box, "score": score, "classIndex": label}
                for box, score, label in zip(
                    x.xyxy.tolist(), x.confidence.tolist(), x.class_id.tolist()
                )
            ]
            for x in found
        ],
        "places": places.tolist(),
        "image": {"height": image_size[0], "width": image_size[1]},
        "boxes": kept.xyxy.tolist(),
        "scores": kept.confidence.tolist(),
        "classes": kept.class_id.tolist(),
    }


def test_modules(node, tmp_path):
    rng = np.random.default_rng(0)
    cases = {
        "slices": [
            slice_case(100, 160, Tiles(size=100, overlap=0.4)),
            slice_case(50, 60, Tiles(size=100)),
            slice_case(2501, 3333, Tiles(size=641, overlap=0.23, whole=False)),
            slice_case(997, 100, Tiles(size=97, overlap=0.89)),
            slice_case(1000, 700, Tiles(size=100, levels=4)),
        ],
        "merges": [merge_case(rng) for _ in range(5)],
        "images": [
            image_case(rng, (37, 53), (64, 96), "BGR"),
            image_case(rng, (97, 60), (32, 64), "RGB"),
            image_case(rng, (64, 64), (64, 64), "BGR"),
            image_case(rng, (1, 1), (4, 4), "BGR"),
        ],
        "outputs": [
            output_case(rng, (64, 96), (480, 640), 5),
            output_case(rng, (160, 128), (100, 50), 1),
            output_case(rng, (100, 90), (100, 90), 3),  # partial cells
            output_case(rng, (64, 96), (480, 640), 2, nms="voting"),
        ],
    }
    path = tmp_path / "cases.json"
    path.write_text(json.dumps(cases))
    out = run(node, "--test", str(HERE / "modules.test.mjs"), NANODET_CASES=str(path))
    assert "# fail 0" in out and "# skipped 0" in out, out


def serve_module():
    return load_script(WEB / "serve.py")


def write_video(image: np.ndarray, path: Path) -> None:
    """A still picture of 640 x 480 as an uncompressed video, which Chromium takes as a camera."""
    frame = cv2.cvtColor(cv2.resize(image, (640, 480)), cv2.COLOR_BGR2YUV_I420).tobytes()
    head = b"YUV4MPEG2 W640 H480 F10:1 Ip A1:1 C420jpeg\n"
    path.write_bytes(head + (b"FRAME\n" + frame) * 5)


@pytest.fixture(scope="module")
def exported(shared, tmp_path_factory) -> Path:
    for package in ("onnx", "onnxscript", "onnxslim", "onnxruntime"):
        pytest.importorskip(package)
    weights = str(shared / "weights/nanodet-plus-m_416.pth")
    folder = tmp_path_factory.mktemp("export")
    job = Job(formats=("onnx",), output=folder, verify=False)
    return export(load_model(str(CONFIG), weights), job)[0].path


@pytest.fixture(scope="module")
def report(node, browser, exported, shared, root, tmp_path_factory) -> dict:
    """What the page showed; see browser.mjs."""
    folder = tmp_path_factory.mktemp("page")
    page = folder / "dist"
    run(node, str(WEB / "build.mjs"), "--output", str(page), "--model", str(exported))
    junk, bare = folder / "junk.onnx", folder / "bare.onnx"
    junk.write_bytes(b"not a model")
    import onnx

    model = onnx.load(exported)
    del model.metadata_props[:]
    onnx.save(model, bare)
    picture = shared / PICTURE
    write_video(cv2.imread(str(picture)), folder / "camera.y4m")
    large = folder / "large.png"
    cv2.imwrite(str(large), cv2.resize(cv2.imread(str(picture)), None, fx=2, fy=2))
    screenshot = root / "output/web/screenshot.png"
    screenshot.parent.mkdir(parents=True, exist_ok=True)

    plain = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(page))
    servers = [
        serve_module().make_server(page, 0),
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), plain),
    ]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    urls = [f"http://localhost:{server.server_port}/" for server in servers]
    options = {
        "url": urls[0],
        "plainUrl": urls[1],
        "chromium": browser,
        "picture": str(picture),
        "large": str(large),
        "model": str(exported),
        "models": [str(junk), str(bare)],
        "video": str(folder / "camera.y4m"),
        "screenshot": str(screenshot),
    }
    try:
        shown = json.loads(run(node, str(HERE / "browser.mjs"), json.dumps(options)))
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()
    assert screenshot.stat().st_size > 50_000
    return {**shown, "url": urls[0], "page": page, "large": large}


@pytest.fixture(scope="module")
def expected(shared):
    """PyTorch's detections of the picture."""
    detector = Detector(CONFIG, shared / "weights/nanodet-plus-m_416.pth")
    return detector(shared / PICTURE)


def assert_same(result: dict, expected) -> None:
    found = result["detections"]
    scores = np.array([x["score"] for x in found])
    boxes = np.array([x["box"] for x in found])
    assert [x["classIndex"] for x in found] == expected.class_id.tolist()
    assert np.abs(scores - expected.confidence).max() < 1e-2
    assert np.abs(boxes - expected.xyxy).max() < 1


@pytest.mark.slow
def test_a_picture_has_the_detections_of_pytorch(report, expected):
    assert len(expected) > 50
    assert_same(report["result"], expected)
    assert report["isolated"] and " threads of WebAssembly" in report["status"]


@pytest.mark.slow
def test_a_plain_server_gives_the_same_in_one_thread(report, expected):
    assert "1 thread of WebAssembly" in report["plainStatus"]
    assert_same(report["plainResult"], expected)


@pytest.mark.slow
def test_a_large_picture_in_slices_has_the_detections_of_pytorch(report, shared):
    weights = shared / "weights/nanodet-plus-m_416.pth"
    detector = Detector(CONFIG, weights, tiles=Tiles(size=640, overlap=0.2, whole=True))
    expected = detector(report["large"])
    found = [x for x in report["tilesResult"]["detections"] if x["score"] > 0.3]
    expected = expected[expected.confidence > 0.3]
    assert len(expected) > 10 and abs(len(found) - len(expected)) <= 1
    boxes = np.array([x["box"] for x in found])
    labels = np.array([x["classIndex"] for x in found])
    same = [
        ((np.abs(boxes - box).max(axis=1) < 2) & (labels == label)).any()
        for box, label in zip(expected.xyxy, expected.class_id)
    ]
    assert np.mean(same) > 0.95


@pytest.mark.slow
def test_the_page_shows_what_it_found(report, expected):
    shown = int((expected.confidence > 0.35).sum())
    assert len(report["rows"]) == shown
    assert report["rows"][0].startswith("person")
    assert report["summary"] == f"Picture with {shown} detections: {shown} person"
    assert report["problems"] == []


@pytest.mark.slow
def test_classes_are_hidden_and_shown_again(report):
    assert report["classesFound"] == ["person"]
    assert report["classCount"] == "79 of 80"
    assert not any(row.startswith("person") for row in report["rowsWithoutPersons"])
    assert report["rowsAgain"] == len(report["rows"]) > len(report["rowsWithoutPersons"])


@pytest.mark.slow
def test_nothing_comes_from_elsewhere(report):
    assert report["requests"] and all(x.startswith(report["url"]) for x in report["requests"])


def test_what_a_document_may_do_is_stated():
    page = (WEB / "src/index.html").read_text()
    policy = re.search(r'Content-Security-Policy"\s+content="([^"]+)"', page)[1]
    directives = dict(x.strip().split(" ", 1) for x in policy.split(";"))
    assert directives["default-src"] == "'self'"
    # to these, default-src does not apply
    assert directives["base-uri"] == directives["form-action"] == "'none'"


@pytest.mark.slow
def test_the_built_page_carries_the_licences(report):
    license, notices = (report["page"] / "ort" / x for x in ("LICENSE", "ThirdPartyNotices.txt"))
    assert "MIT License" in license.read_text() and "Microsoft" in license.read_text()
    for library in ("protobuf", "flatbuffers", "Eigen", "abseil"):  # they are in its WebAssembly
        assert library in notices.read_text()
    assert "Apache License" in (report["page"] / "LICENSE").read_text()
    pinned = json.loads((WEB / "package.json").read_text())["dependencies"]["onnxruntime-web"]
    assert (WEB / "licenses" / f"onnxruntime-web-{pinned}").is_dir()


@pytest.mark.slow
def test_what_is_done_with_gives_its_memory_back(report, expected):
    assert report["released"] == 1  # the session of the model before
    assert_same(report["resultOfOther"], expected)
    assert report["openBitmaps"] == 0


@pytest.mark.slow
def test_errors_are_shown_in_words(report):
    junk, bare = report["refused"]
    assert junk.startswith("junk.onnx is no ONNX model that this page can run")
    assert "bare.onnx carries no metadata" in bare and "bare.onnx.json" in bare
    assert report["statusAfter"] == report["status"]  # the model before is still there
    assert report["wrongPicture"] == "junk.onnx is no picture that this browser can read."
    assert report["cameraRefused"].startswith("The camera was refused. Allow it")


@pytest.mark.slow
def test_the_camera(report, shared):
    frames = report["cameraResult"]["detections"]
    people = [x for x in frames if x["score"] > 0.5 and x["classIndex"] == 0]
    height, width = read_image({"file_name": str(shared / PICTURE)}, "BGR").shape[:2]
    assert (height, width) == (480, 640) and len(people) >= 5
    assert float(report["fps"].removesuffix(" /s")) > 0
    assert report["cameraButton"] == "Start camera"  # after it was stopped
