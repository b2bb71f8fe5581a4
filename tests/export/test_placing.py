"""Files come to their place all together, or not at all."""

from __future__ import annotations

import dataclasses
import os

import pytest

from nanodet_d2.export import placing, products, writer
from nanodet_d2.export.network import RawNetwork
from nanodet_d2.export.placing import move_all
from nanodet_d2.export.running import Mismatch
from nanodet_d2.export.writer import export
from nanodet_d2.runtime.backends import backend_of

NAMES = ("m.bin", "m.json", "m.xml")


def write(folder, names, text):
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_text(text)


def contents(folder):
    files = [x for x in folder.rglob("*") if x.is_file()]
    return {x.relative_to(folder).as_posix(): x.read_text() for x in files}


@pytest.fixture
def folders(tmp_path):
    new, place = tmp_path / "place/new", tmp_path / "place"
    write(place, [*NAMES, "other.xml"], "old")
    write(new, [*NAMES, "more.txt"], "new")
    write(new / "kit", ["picture.png"], "new")
    return new, place


def test_all_are_replaced_and_a_model_never_stands_beside_others_files(folders, monkeypatch):
    new, place = folders
    replace, seen = os.replace, []

    def noting(origin, target):
        replace(origin, target)
        if (place / "m.xml").is_file():
            seen.append({(place / x).read_text() for x in NAMES if (place / x).is_file()})

    monkeypatch.setattr(placing.os, "replace", noting)
    move_all(new, place, last="m.xml")
    assert seen == [{"new"}]  # it was away in the meantime
    expected = {**dict.fromkeys(NAMES, "new"), "more.txt": "new", "other.xml": "old"}
    assert contents(place) == {**expected, "kit/picture.png": "new"}


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
@pytest.mark.parametrize("done", [False, True])
def test_what_stops_it_leaves_everything_as_it_was(folders, monkeypatch, error, done):
    new, place = folders
    before, replace = contents(place), os.replace
    for stop in range(8):  # moves: three files away, four files and a folder there
        calls = 0

        def stopping(origin, target, stop=stop):
            nonlocal calls
            calls += 1
            if calls == stop + 1:
                if done:
                    replace(origin, target)
                raise error("stopped")
            replace(origin, target)

        monkeypatch.setattr(placing.os, "replace", stopping)
        with pytest.raises(error, match="stopped"):
            move_all(new, place, last="m.xml")
        assert contents(place) == before


def test_a_suffix_keeps_what_is_there(folders):
    new, place = folders
    move_all(new, place, last="m.xml", suffix=".bad")
    expected = {**dict.fromkeys([*NAMES, "other.xml"], "old"), "kit.bad/picture.png": "new"}
    expected.update({f"{name}.bad": "new" for name in (*NAMES, "more.txt")})
    assert contents(place) == expected


@pytest.fixture
def writes(make_job, monkeypatch):
    """Exports "a model" of three files as ncnn, after an earlier one that was fine."""
    monkeypatch.setattr(writer, "check_job", lambda _: None)
    loaded, job = make_job(formats=["torchscript"])
    job = dataclasses.replace(job, formats=("ncnn",))
    path = job.path(loaded.metadata.name, "ncnn")

    def export_text(text, verify):
        def write(self, format, path):
            for file in backend_of(path).files(path):
                file.write_text(text)

        monkeypatch.setattr(products.Products, "write", write)
        monkeypatch.setattr(writer, "verify", verify)
        export(loaded, job)

    export_text("earlier", lambda *_: [])
    assert len(contents(job.output)) == 3
    return path, export_text


def test_a_wrong_model_leaves_the_earlier_one(writes):
    path, export_text = writes

    def verify(written, references, tolerance):
        assert contents(path.parent) == {**earlier, **written_so_far(written)}
        raise Mismatch(f"{written}: output 'cls8' differs")

    def written_so_far(written):
        return {f"{written.parent.name}/{name}": "new" for name in earlier}

    earlier = contents(path.parent)
    with pytest.raises(Mismatch, match=rf"^{path}: output 'cls8' .*renamed to {path.name}.bad"):
        export_text("new", verify)
    assert contents(path.parent) == {**earlier, **{f"{name}.bad": "new" for name in earlier}}


@pytest.mark.parametrize("error", [RuntimeError("of an engine"), KeyboardInterrupt()])
def test_what_ends_an_export_leaves_no_unverified_file(writes, error):
    path, export_text = writes
    earlier = contents(path.parent)

    def verify(*_):
        raise error

    with pytest.raises(type(error)):
        export_text("new", verify)
    assert contents(path.parent) == earlier and len(list(path.parent.iterdir())) == 3
    export_text("new", lambda *_: [])
    assert contents(path.parent) == dict.fromkeys(earlier, "new")


def test_a_file_that_gives_what_it_does_not_promise_is_set_aside(make_job, monkeypatch):
    """Its own runtime refuses it: a finding like any other difference."""
    loaded, job = make_job(formats=["torchscript"])
    path = job.path(loaded.metadata.name, "torchscript")

    class Less(RawNetwork):
        def forward(self, data):
            return super().forward(data)[..., 1:]  # a class is missing

    monkeypatch.setattr(products, "export_network", lambda model, kind: Less(model).eval())
    with pytest.raises(Mismatch, match=rf"^{path} gives outputs of shape .*renamed"):
        export(loaded, job)
    beside = path.name.replace("torchscript.pt", "torchscript.json")
    assert {x.name for x in job.output.iterdir()} == {f"{path.name}.bad", f"{beside}.bad"}
