"""Every example that a verb's help ends with runs as it stands, in a folder that has its files."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from nanodet_d2 import cli, zoo
from nanodet_d2.cli.verb import load_verbs
from tests.cli.example_files import PORT, shortened, write_files
from tests.small_models import require

COMMANDS = [
    pytest.param(verb, example, id=f"{verb}-{number}")
    for verb, module in load_verbs().items()
    for number, example in enumerate(module.EXAMPLES)
]


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("examples")
    write_files(folder)
    return folder


def require_server() -> None:
    for name in ("starlette", "uvicorn", "python_multipart", "prometheus_client"):
        pytest.importorskip(name, reason=f"{name} not installed: pip install 'nanodet-d2[serve]'")


def end_when_up() -> None:
    """Send this process the signal that ends a server, when one answers."""
    for _ in range(600):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", PORT)):
            os.kill(os.getpid(), signal.SIGTERM)
            return
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.parametrize("verb, example", COMMANDS)
def test_example(verb, example, files, monkeypatch, capsys):
    monkeypatch.chdir(files)
    monkeypatch.setenv(zoo.FOLDER, str(files / "weights"))
    program, *arguments = shlex.split(example)
    if verb == "serve":
        require_server()
        threading.Thread(target=end_when_up, daemon=True).start()
    if "openvino" in arguments:
        require("openvino", "ncnn", "pnnx")
    assert program == "nanodet-d2" and arguments[0] == verb
    arguments = shortened(arguments)
    code = cli.main([*arguments, *([] if "--json" in arguments else ["--json"])])
    out, error = capsys.readouterr()
    facts = json.loads(out)
    assert code == (facts["exit_code"] if verb == "doctor" else 0), error
    assert facts
