"""The server as a process: a real port, real models, and how it ends."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import cv2
import pytest
import uvicorn

from nanodet_d2 import cli
from nanodet_d2.data.shapes import draw_picture
from nanodet_d2.runtime import Detector
from nanodet_d2.runtime.images import read_bytes
from nanodet_d2.runtime.results import picture_row
from nanodet_d2.serving.run import run
from tests.blocking import run_without
from tests.serving.fake import picture, row, service


@contextmanager
def started(root, *command: str):
    """A server's process and port."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", *command],
        env={**os.environ, "PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        told = []
        for line in process.stderr:
            told.append(line)
            found = re.search(r"serving .* at http://127\.0\.0\.1:(\d+)", line)
            if found:
                yield process, int(found[1])
                break
        else:
            raise AssertionError("".join(told))
    finally:
        process.kill()
        process.communicate()


def post(port: int, body: bytes, path: str = "/detect", kind: str = "image/png"):
    """Status and json of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", path, body, {"Content-Type": kind})
    answer = connection.getresponse()
    try:
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def get(port: int, path: str):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", path)
    answer = connection.getresponse()
    try:
        return answer.status, answer.read()
    finally:
        connection.close()


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_the_end_answers_what_has_begun_and_takes_no_more(root, number):
    with started(root, "tests.serving.server", "0.1") as (process, port):
        idle = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        idle.request("GET", "/health")
        assert idle.getresponse().read() == b'{"ok":true}'
        half = socket.create_connection(("127.0.0.1", port))  # whose body never ends
        half.sendall(b"POST /detect HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\na")
        with ThreadPoolExecutor(4) as pool:
            answers = [pool.submit(post, port, picture(i)) for i in range(4)]
            while b"nanodet_requests_in_progress 5.0" not in get(port, "/metrics")[1]:
                time.sleep(0.01)
            process.send_signal(number)
            begin = time.monotonic()
            for i, answer in enumerate(answers):
                assert answer.result() == (200, row(i))
        with pytest.raises(OSError):
            post(port, picture())
        assert b" 408 " in half.recv(1000).splitlines()[0]  # its time is up
        assert process.wait(20) == 0 and time.monotonic() - begin < 10


def test_a_port_that_is_taken_is_told(root):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        program = (
            "from tests.serving.fake import service\nfrom nanodet_d2.serving.run import run\n"
            f"run(service(), host='127.0.0.1', port={taken.getsockname()[1]})"
        )
        done = run_without([], program, timeout=60)
    assert done.returncode == 1
    assert "Address already in use" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    "arguments, told",
    [
        (["nothing.onnx"], "exported file nothing.onnx not found"),
        (["a=nothing.onnx", "a=b.onnx"], "two models are named a"),
        (["a.onnx", "--timeout", "0"], "timeout 0; allowed: more than 0"),
        (["a.onnx", "--max-pixels", "0"], "max_pixels 0; allowed: 1 to"),
        (["a.onnx", "--workers", "0"], "workers 0; allowed: 1 or more"),
        (["a.onnx", "--threads", "0"], "threads 0; allowed: 1 or more"),
    ],
)
def test_wrong_arguments_end_it_before_the_port_opens(arguments, told, capfd, monkeypatch):
    monkeypatch.setattr(socket, "create_server", None)
    assert cli.main(["serve", *arguments]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("nanodet-d2 serve: ") and told in line


def test_what_is_missing_is_named():
    program = "from nanodet_d2 import cli\nraise SystemExit(cli.main(['serve', 'a.onnx']))"
    done = run_without(["uvicorn", "prometheus_client"], program)
    assert done.returncode == 1
    assert done.stderr == (
        "nanodet-d2 serve: serve needs uvicorn, prometheus_client, not installed here: "
        "pip install 'nanodet-d2[serve]'\n"
    )


def test_exported_files_are_served_without_torch():
    program = (
        "from nanodet_d2 import cli\ncode = cli.main(['serve', 'nothing.onnx'])\n"
        "there = {'torch', 'detectron2'} & {k for k, v in sys.modules.items() if v}\n"
        "raise SystemExit(f'imported {there}' if there else code)"
    )
    done = run_without(["torch", "torchvision", "detectron2"], program)
    assert done.returncode == 2
    assert done.stderr == "nanodet-d2 serve: exported file nothing.onnx not found\n"


@pytest.mark.slow
def test_models_by_name_answer_as_predict_does(root, small_models):
    """Many clients at once, good and hostile bodies, two real models."""
    files = {"a": small_models.file("onnx"), "b": small_models.file("onnx", dynamic=True)}
    pictures = []
    for i in range(12):
        done, data = cv2.imencode(".jpg", draw_picture(i, "val", i, 96 + 8 * i)[0])
        assert done
        pictures.append(data.tobytes())
    expected = {}
    for name, path in files.items():
        detector = Detector(path, num_threads=1, score_thresh=0.05)
        for i, data in enumerate(pictures):
            found = picture_row("0", detector(read_bytes(data, "x")))
            expected[name, i] = {**found, "error": None}
    assert sum(len(x["detections"]) for x in expected.values()) > 20
    command = ["nanodet_d2", "serve", *(f"{k}={v}" for k, v in files.items())]
    command += ["--port", "0", "--workers", "2", "--threshold", "0.05"]
    with started(root, *command) as (process, port):

        def work(number: int) -> None:
            name, i = "ab"[number % 2], number % len(pictures)
            if number % 20 == 7:
                assert post(port, pictures[i][:200], f"/detect/{name}")[0] == 422
            else:
                assert post(port, pictures[i], f"/detect/{name}") == (200, expected[name, i])

        with ThreadPoolExecutor(8) as pool:
            assert len(list(pool.map(work, range(600)))) == 600
        assert [x["name"] for x in json.loads(get(port, "/models")[1])["models"]] == ["a", "b"]
        process.terminate()
        assert process.wait(20) == 0


def test_no_part_of_an_answer_waits_for_the_client(monkeypatch):
    """Of a connection that the server accepts: TCP sends at once what is written to it."""
    found = []

    def accept(server, sockets):
        with socket.create_connection(sockets[0].getsockname()):
            connection, _ = sockets[0].accept()
            found.append(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            connection.close()

    monkeypatch.setattr(uvicorn.Server, "run", accept)
    served = service()
    try:
        run(served, host="127.0.0.1", port=0)
    finally:
        served.close()
    assert found and found[0] != 0
