"""Hundreds of mutations of valid files: each is read, or refused in one line that names the file.

``projects/nanodet_plus/fuzz.py`` does the same for longer.
"""

from __future__ import annotations

import random

import pytest

from tests.scripts import load_script


@pytest.fixture(scope="module")
def fuzz(root):
    return load_script(root / "projects" / "nanodet_plus" / "fuzz.py")


@pytest.fixture
def targets(fuzz, tmp_path):
    return fuzz.make_targets(tmp_path / "valid")


NAMES = ("coco", "voc", "yolo", "weights", "legacy weights", "jpg", "png", "tif")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_mutants_are_read_or_refused_in_one_line(fuzz, targets, name):
    target = targets[name]
    assert fuzz.verdict(target, target.valid) == ("read", None)
    for seed in range(250):
        data = target.mutant(random.Random(seed))
        outcome, wrong = fuzz.verdict(target, data)
        assert wrong is None, f"seed {seed}: {outcome}, {wrong}, {data[:300]!r}"
    assert set(targets) == set(NAMES)


def test_findings_are_found(fuzz, targets, monkeypatch, tmp_path, capsys):
    target = targets["yolo"]

    def fail(error: BaseException):
        def read():
            raise error

        return read

    for error, words in (
        (KeyError("x"), "KeyError"),
        (ValueError("two\nlines"), "more than one line"),
        (ValueError("something is wrong"), "the file is not named"),
        (UnicodeDecodeError("utf-8", b"x", 0, 1, "y"), "UnicodeDecodeError"),
    ):
        monkeypatch.setattr(target, "read", fail(error))
        assert words in fuzz.verdict(target, b"")[1]

    def hang():
        while True:
            try:
                sum(range(1000))
            except Exception:
                pass

    monkeypatch.setattr(fuzz, "SECONDS", 0.05)
    monkeypatch.setattr(target, "read", hang)
    assert fuzz.verdict(target, b"") == ("slow", "Slow('more than 0.05 s')")
    assert target.file.read_bytes() == target.valid

    monkeypatch.setattr(fuzz, "make_targets", lambda folder: {"yolo": target})
    arguments = ["--minutes", "0.01", "--keep", str(tmp_path / "kept")]
    assert fuzz.main(arguments) == 1
    assert "1 findings" in capsys.readouterr().out and len(list((tmp_path / "kept").iterdir())) == 1
