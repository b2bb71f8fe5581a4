"""The application in a Ray Serve cluster: the same answers; arguments are checked first."""

from __future__ import annotations

import json
import socket
from concurrent.futures import ThreadPoolExecutor

import cv2
import pytest

from nanodet_d2.data.shapes import draw_picture
from nanodet_d2.runtime import Detector
from nanodet_d2.runtime.images import read_bytes
from nanodet_d2.runtime.results import picture_row
from nanodet_d2.serving import on_ray
from tests.serving.test_run import get, post


@pytest.mark.parametrize(
    "args, told",
    [
        ({}, "models is empty; give exported files"),
        ({"models": " "}, "models is empty"),
        ({"models": "a.onnx", "worker": 1}, "unknown argument worker; allowed: models, replicas"),
        ({"models": "a.onnx", "workers": "two"}, "workers 'two'; allowed: a value of type int"),
        ({"models": "a.onnx", "replicas": "0"}, "replicas 0; allowed: 1 or more"),
        ({"models": "a.onnx", "max_pixels": "0"}, "max_pixels 0; allowed: 1 to"),
    ],
)
def test_arguments_that_cannot_be(args, told):
    with pytest.raises(ValueError, match=told):
        on_ray.checked(args)


def test_arguments_of_a_command_line_and_of_a_file_are_the_same():
    typed = {"models": ["a.onnx", "b=c.xml"], "workers": 2, "timeout": 3.0, "device": None}
    texts = {"models": "a.onnx b=c.xml", "workers": "2", "timeout": "3"}
    expected = {"models": ["a.onnx", "b=c.xml"], "workers": 2, "timeout": 3.0}
    assert on_ray.checked(typed) == on_ray.checked(texts) == expected


@pytest.fixture
def cluster(root, monkeypatch):
    """A Ray of this machine with Serve at a free port, which it returns."""
    reason = "Ray Serve is not installed: pip install 'nanodet-d2[ray]'"
    serve = pytest.importorskip("ray.serve", reason=reason)
    monkeypatch.setenv("PYTHONPATH", str(root))
    import ray

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    ray.init(num_cpus=2, include_dashboard=False)
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        yield port
    finally:
        serve.shutdown()
        ray.shutdown()


@pytest.mark.slow
def test_a_cluster_answers_as_predict_does(cluster, small_models):
    from ray import serve

    path = small_models.file("onnx")
    detector = Detector(path, num_threads=1, score_thresh=0.05)
    bodies, expected = [], []
    for i in range(10):
        done, data = cv2.imencode(".jpg", draw_picture(i, "val", i, 96 + 8 * i)[0])
        assert done
        found = picture_row("0", detector(read_bytes(data.tobytes(), "x")))
        bodies.append(data.tobytes())
        expected.append({**found, "error": None})
    args = {"models": f"small={path}", "threshold": 0.05, "replicas": 2, "max_bytes": 100_000}
    serve.run(on_ray.build(args), name="detector")
    assert serve.status().applications["detector"].status == "RUNNING"
    told = json.loads(get(cluster, "/models")[1])
    assert [x["name"] for x in told["models"]] == ["small"]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda i: post(cluster, bodies[i % 10]), range(200)))
    assert answers == [(200, expected[i % 10]) for i in range(200)]
    assert post(cluster, b"<html>")[0] == 422
    assert post(cluster, b"x" * 100_001)[0] == 413
    assert post(cluster, bodies[0], "/detect/other")[0] == 404
    assert post(cluster, b"{", kind="application/json")[0] == 400
    assert get(cluster, "/health") == (200, b'{"ok":true}')


@pytest.mark.slow
def test_a_model_that_is_not_there_is_told(cluster, tmp_path):
    from ray import serve

    with pytest.raises(RuntimeError, match="detector"):
        serve.run(on_ray.build({"models": str(tmp_path / "nothing.onnx")}), name="detector")
