"""The C++ header under AddressSanitizer and UBSan: whatever it is given, it ends in one line."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest

from nanodet_d2.conformance import write_kit
from tests.cpp.programs import SANITIZERS, compile_replay, run, write_outputs

pytestmark = pytest.mark.slow

PICTURES = {
    "empty": b"",
    "magic alone": b"P6",
    "no pixels": b"P6 0 0 255\n",
    "no width": b"P6\n#",
    "truncated": b"P6 4 4 255\n" + b"x" * 47,
    "negative": b"P6 -4 4 255\n" + b"x" * 48,
    "16 bits": b"P6 2 2 65535\n" + b"x" * 24,
    "huge": b"P6 99999999999999999999 99999999999 255\n",
    "many pixels": b"P6 1000000 1000000 255\n",
    "PNG": b"\x89PNG\r\n\x1a\n" + b"\0" * 50,
}
WHOLE = {"one pixel": b"P6 1 1 255\nabc", "a line": b"P6 9999 1 255\n" + b"abc" * 9999,
         "comments": b"P6#a\n#b\n 2 #c\n 2 255\n" + b"x" * 12}  # fmt: skip


@pytest.fixture(scope="module")
def replay(tmp_path_factory) -> Path:
    return compile_replay(tmp_path_factory.mktemp("cpp"), "-O1", *SANITIZERS)


@pytest.fixture(scope="module", params=[("onnx", "raw"), ("onnx", "decoded"), ("ncnn", "raw")])
def kit(request, small_models, tmp_path_factory) -> Path:
    format, kind = request.param
    model = small_models.file(format, kind=kind)
    return write_kit(model, tmp_path_factory.mktemp("kit") / "kit")


def refused(done) -> None:
    assert done.returncode in (1, 2) and done.stderr.count("\n") == 1, done.stderr[-2000:]
    assert "Sanitizer" not in done.stderr and "runtime error" not in done.stderr


def test_pictures(replay, kit, tmp_path):
    outputs = write_outputs(kit, "picture_0", tmp_path / "outputs")
    for name, content in {**PICTURES, **WHOLE}.items():
        path = tmp_path / "picture.ppm"
        path.write_bytes(content)
        done = run(replay, outputs, kit / "contract.json", path)
        if name in WHOLE:
            assert done.returncode == 0, done.stderr
        else:
            refused(done)
    refused(run(replay, outputs, kit / "contract.json", tmp_path / "none.ppm"))
    refused(run(replay, outputs, kit / "contract.json", tmp_path))


def test_outputs(replay, kit, tmp_path):
    """Values that no network gives, and too few or too many of them."""
    picture = kit / "picture_0.ppm"
    generator = np.random.default_rng(0)
    outputs = write_outputs(kit, "picture_0", tmp_path / "outputs")
    files = sorted(outputs.glob("*.bin"))
    whole = [np.fromfile(file, "<f4") for file in files]
    odd = np.array([np.nan, -np.inf, 0, -0.0, 1e38, -1e38, 1e-40, 1, 0.5, np.inf], np.float32)
    for case in range(20):
        for file, values in zip(files, whole):
            generator.choice(odd[: -1 if case < 10 else None], len(values)).tofile(file)
        done = run(replay, outputs, kit / "contract.json", picture)
        if done.returncode:
            refused(done)
            assert "scores that are not finite" in done.stderr
        else:
            boxes = json.loads(done.stdout)["pictures"][picture.name]["boxes"]
            assert np.isfinite(boxes).all()
    for change in (lambda x: x[:-1], lambda x: x[:0], lambda x: np.append(x, x[:1])):
        for file, values in zip(files, whole):
            change(values).tofile(file)
        refused(run(replay, outputs, kit / "contract.json", picture))
    files[-1].unlink()
    refused(run(replay, outputs, kit / "contract.json", picture))


def mutate(text: str, chance: random.Random) -> bytes:
    content = bytearray(text.encode())
    for _ in range(chance.randint(1, 4)):
        at, kind = chance.randrange(len(content)), chance.random()
        if kind < 0.3:
            content[at] = chance.randrange(256)
        elif kind < 0.5:
            del content[at : at + chance.randint(1, 40)]
        elif kind < 0.7:
            part = content[at : at + chance.randint(1, 60)]
            content[chance.randrange(len(content)) : 0] = part * chance.randint(1, 3)
        elif kind < 0.9:
            words = (b"-1", b"1e999", b"0.5", b"null", b"[", b"{", b'"', b"\\u", b"99999999999")
            content[at : at + chance.randint(0, 3)] = chance.choice(words)
        else:
            del content[at:]
        if not content:
            break
    return bytes(content)


def test_contracts(replay, kit, tmp_path):
    """A hundred damaged contracts for each form are read or refused, and never overrun anything."""
    chance = random.Random(0)
    outputs = write_outputs(kit, "picture_0", tmp_path / "outputs")
    text = (kit / "contract.json").read_text()
    path, read = tmp_path / "contract.json", 0
    odd = [b"", b"[" * 100_000, b"{" * 100_000, b'{"a":' * 5000, b'"\\ud800\\u"', b"nul", b"\xff"]
    for content in [*odd, *(mutate(text, chance) for _ in range(100))]:
        path.write_bytes(content)
        done = run(replay, outputs, path, kit / "picture_0.ppm")
        if done.returncode:
            refused(done)
        else:
            read += 1
    assert read < 60  # a change in a file's name or hash does no harm
