"""The command itself: help, errors in one line, exit codes, overrides anywhere, completion."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from nanodet_d2 import cli
from nanodet_d2.cli.parsing import build_parser, split_overrides
from nanodet_d2.cli.verb import Outcome, load_verbs
from nanodet_d2.export.verify import Mismatch

VERBS = [
    *("batch", "benchmark", "check", "convert", "data", "doctor", "env", "eval"),
    *("export", "info", "kit", "predict", "serve", "ship", "track", "train", "zoo"),
]


@pytest.fixture
def zoo_that(monkeypatch):
    """Lets the verb ``zoo`` do something else."""

    def change(run):
        monkeypatch.setattr(load_verbs()["zoo"], "run", run)

    return change


def test_all_verbs_are_there_and_in_the_help(capsys):
    assert sorted(load_verbs()) == VERBS
    assert cli.main(["--help"]) == 0
    told = capsys.readouterr().out
    assert all(f"\n    {name} " in told for name in VERBS)
    assert cli.main([]) == 0  # the same


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_a_verb_ends_with_two_examples(verb, capsys):
    assert cli.main([verb, "--help"]) == 0
    told = capsys.readouterr().out.rstrip().splitlines()
    assert told[-3] == "examples:"
    assert all(line.startswith(f"  nanodet-d2 {verb}") for line in told[-2:])


def test_help_imports_nothing_heavy():
    program = (
        "import sys\nfrom nanodet_d2 import cli\ncode = cli.main(['train', '--help'])\n"
        "heavy = {'torch', 'detectron2', 'cv2', 'numpy', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else code)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_it_is_a_module_as_well():
    command = [sys.executable, "-m", "nanodet_d2", "--version"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("nanodet-d2 ")


@pytest.mark.parametrize(
    "arguments, told",
    [
        (["trian"], "invalid choice: 'trian'"),
        (["export"], "the following arguments are required: SOURCE"),
        (["zoo", "--fetsch"], "unrecognized arguments: --fetsch"),
        (["zoo", "a=b"], "invalid choice: 'a=b'"),
        (["predict", "model.onnx"], "the following arguments are required: INPUT"),
        (["batch", "model.onnx", "a.jpg"], "the following arguments are required: --output"),
        (["batch", "nothing.onnx", "a.jpg", "--output", "out"], "exported file nothing.onnx not"),
        (["batch", "nothing.onnx", ".", "--output", "out"], "out lies in ., whose pictures are"),
        (["batch", "a.onnx", "a.jpg", "--output", "o", "--review", "-1"], "review -1; allowed: 0"),
        (["predict", "nothing.onnx", "nowhere.jpg"], "nowhere.jpg is neither a file, a folder"),
        (["info", "nothing.onnx"], "exported file nothing.onnx not found"),
        (["info", "model.txt"], "model.txt is no model"),
        (["export", "model.pth"], "--format is missing; there are:"),
        (["export", "model.pth", "--format", "tflight"], "unknown format tflight; known: "),
        (["eval", "model.onnx"], "model.onnx has no data set: give --data"),
        (["eval", "model.onnx", "--data", "a.json"], "--data a.json needs --images, the folder"),
        (["eval", "model.onnx", "--images", "a"], "--images and --split are of --data"),
        (["eval", "model.onnx", "--data", ".", "--images", "a"], "--images is for a json"),
        (
            ["eval", "a.onnx", "--data", "a.json", "--images", "a", "--split", "test"],
            "--split is for a folder; --data a.json is one split",
        ),
        (["eval", "a.onnx", "--data", "."], ". has no data set that is known here"),
        (["ship", "model.pth"], "--data is needed: AP is measured on it"),
        (["data", "info", "nowhere"], "data set nowhere not found"),
        (["data", "info", "."], ". has no data set that is known here; it looks like an empty"),
        (["data", "info", ".", "--copy"], "--copy is not for data info"),
        (["data", "info", ".", "train.max_iter=1"], "allowed for a data set's folder: data.…=…"),
        (["data", "info", ".", "data.colour=1"], "data has no 'colour'"),
        (["data", "info", ".", "--images", "-1"], "--images -1; allowed: 0 or more"),
        (["data", "convert", "."], "data convert needs --output, a new folder"),
        (["data", "convert", ".", "--output", "new", "--images", "3"], "not for data convert"),
        (["doctor"], "give one DATASET, or --config"),
        (["doctor", "a.json", "--input-size", "1,x"], "'1,x'; allowed: whole numbers above 0"),
        (["train", "nothing.py"], "config nothing.py not found"),
    ],
)
def test_who_asks_wrongly_is_told_in_one_line(arguments, told, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 2
    out, error = capfd.readouterr()
    (line,) = error.splitlines()
    verb = f" {arguments[0]}" if arguments[0] in VERBS else ""
    assert line.startswith(f"nanodet-d2{verb}: ") and told in line and not out
    assert not list(tmp_path.iterdir()) or arguments[0] == "doctor"


def test_what_fails_ends_with_1(zoo_that, capsys):
    for error, told in (
        (Mismatch("model.onnx: output differs"), "nanodet-d2 zoo: model.onnx: output differs"),
        (OSError("disk full"), "nanodet-d2 zoo: disk full"),
        (ImportError("needs ncnn"), "nanodet-d2 zoo: needs ncnn"),
        (KeyError("x"), "nanodet-d2 zoo: KeyError: 'x' (--traceback shows where)"),
        (KeyboardInterrupt(), "nanodet-d2: interrupted"),
    ):
        zoo_that(lambda args, error=error: (_ for _ in ()).throw(error))
        assert cli.main(["zoo"]) == 1
        assert capsys.readouterr().err == told + "\n"


def test_a_traceback_is_shown_when_asked_for(zoo_that, capsys):
    zoo_that(lambda args: {}["x"])
    assert cli.main(["zoo", "--traceback"]) == 1
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_json_alone_goes_to_standard_output(zoo_that, capsys):
    def run(args):
        sys.stdout.write("a library prints\n")
        return Outcome("for people", {"Hündin": 1}, code=1)

    zoo_that(run)
    assert cli.main(["zoo", "--json"]) == 1
    out, error = capsys.readouterr()
    assert json.loads(out) == {"Hündin": 1} and error == "a library prints\n"
    assert cli.main(["zoo"]) == 1
    assert capsys.readouterr().out == "a library prints\nfor people\n"


@pytest.mark.parametrize(
    "arguments, rest, overrides",
    [
        (["m.pth", "--format", "onnx", "a.b=1"], ["m.pth", "--format", "onnx"], ["a.b=1"]),
        (["a=1", "m.pth", "+b.c=2", "--fp16"], ["m.pth", "--fp16"], ["a=1", "+b.c=2"]),
        (["m.pth", "--output", "a=b", "c=d"], ["m.pth", "--output", "a=b"], ["c=d"]),
        (["m.pth", "--images", "./a=b.jpg"], ["m.pth", "--images", "./a=b.jpg"], []),
        (["m.pth", "--input-size", "64", "96", "a=1"], ["m.pth", "--input-size", "64", "96"],
         ["a=1"]),
        (["m.pth", "--weights=a", "x.y=[1,2]"], ["m.pth", "--weights=a"], ["x.y=[1,2]"]),
    ],
)  # fmt: skip
def test_overrides_stand_anywhere(arguments, rest, overrides):
    _, parsers = build_parser(load_verbs())
    assert split_overrides(parsers["export"], arguments, allowed=True) == (rest, overrides)
    assert split_overrides(parsers["export"], arguments, allowed=False) == (arguments, [])


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_shells_complete(shell, capsys):
    pytest.importorskip("shtab")
    assert cli.main(["--completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(word in script for word in (*VERBS, "--calibration"))
    if shell == "bash":
        assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0
