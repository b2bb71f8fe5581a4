"""A run: nothing is lost, what is there is kept, and the bytes do not tell how they came about."""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path

import cv2
import pytest
from pycocotools.coco import COCO

from nanodet_d2.batch import Wish, Work, command, detect_all
from nanodet_d2.batch.command import SHARD_SIZE
from nanodet_d2.batch.review import copy_name, most_uncertain, uncertainty
from nanodet_d2.batch.rows import line_of, row_of
from nanodet_d2.batch.shards import locked
from nanodet_d2.batch.work import header_of
from nanodet_d2.cli.parsing import build_parser
from nanodet_d2.cli.verb import load_verbs
from nanodet_d2.runtime import Detector
from tests.batch.fake import BLUE, Fake, Other, contents, draw, work

LEVELS = {"a.png": 90, "b.png": 200, "c/d.png": 60, "e.png": 10, "f.png": 120}
BROKEN = {"bad.jpg": b"<html>", "empty.png": b""}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The working folder, with seven pictures in photos/, two of them broken."""
    monkeypatch.chdir(tmp_path)
    for name, level in LEVELS.items():
        draw(tmp_path / "photos" / name, level)
    for name, data in BROKEN.items():
        (tmp_path / "photos" / name).write_bytes(data)
    return tmp_path


@pytest.fixture
def in_process(monkeypatch):
    """Rows are made without other processes, which take their time to start; returns the shards
    that were made."""
    made = []

    def engine(todo, work, wish):
        detector = work.open()
        for shard in reversed(todo):  # in any order
            made.append(shard)
            yield shard, b"".join(line_of(row_of(x, detector)) for x in shard.items())

    monkeypatch.setattr(command, "_engine", engine)
    return made


def run(output="out", *, inputs=("photos",), model=Fake, **options):
    wish = Wish(inputs=inputs, output=Path(output), shard_size=2, **options)
    return detect_all(work(model), wish)


def test_every_picture_has_its_row(here, in_process):
    facts = run(formats=["jsonl", "coco"])
    expected = {"pictures": 7, "unreadable": 2, "detections": 5, "shards": 4, "computed": 7}
    assert facts == expected | {
        "output": "out", "files": ["out/shards", "out/detections.json"]
    }  # fmt: skip
    index = json.loads((here / "out/index.json").read_text())
    rows = [json.loads(line) for shard in index["shards"]
            for line in (here / "out/shards" / shard["file"]).read_text().splitlines()]  # fmt: skip
    names = sorted([*LEVELS, *BROKEN])
    assert [x["file_name"] for x in rows] == [f"photos/{x}" for x in names]
    errors = {x["file_name"]: x["error"] for x in rows if x["error"]}
    assert "not an image of the formats" in errors["photos/bad.jpg"]
    assert errors["photos/empty.png"] == "the file is empty" and len(errors) == 2
    content = json.loads((here / "out/detections.json").read_text())
    assert [x["file_name"] for x in content["images"]] == [f"photos/{x}" for x in sorted(LEVELS)]
    assert {x["file_name"]: x["error"] for x in content["unreadable"]} == errors
    coco = COCO(str(here / "out/detections.json"))
    assert len(coco.getAnnIds()) == 5 and content["info"]["model"]["file"] == "fake.onnx"


def test_the_header_holds_hashes_of_files_and_contract(tmp_path):
    class AsOnnx(Fake):
        backend, path = "onnxruntime", str(tmp_path / "a.onnx")

    (tmp_path / "a.onnx").write_bytes(b"a network")
    header = header_of(AsOnnx(), threads=1, device=None)
    expected = hashlib.sha256(b"a network").hexdigest()
    assert header["model"] == {"file": "a.onnx", "sha256": {"a.onnx": expected}}
    contract = json.dumps(header["contract"], sort_keys=True, separators=(",", ":"))
    assert header["contract_sha256"] == hashlib.sha256(contract.encode()).hexdigest()
    assert header["contract"]["format"] == "onnx" and "onnxruntime" in header["versions"]
    assert str(tmp_path) not in json.dumps(header)


@pytest.mark.slow
def test_the_header_of_a_real_model(here, in_process, small_models):
    model = small_models.file("torchscript")
    wish = Wish(inputs=["photos/a.png"], output=here / "out")
    detect_all(Work(functools.partial(Detector, model), threads=1, folder=str(here)), wish)
    header = json.loads((here / "out/header.json").read_text())
    expected = hashlib.sha256(model.read_bytes()).hexdigest()
    assert header["model"]["sha256"][model.name] == expected
    contract = json.dumps(header["contract"], sort_keys=True, separators=(",", ":"))
    assert header["contract_sha256"] == hashlib.sha256(contract.encode()).hexdigest()
    assert header["contract"]["class_names"] and header["versions"]["torch"]
    assert str(here) not in json.dumps(header) and str(model.parent) not in json.dumps(header)


def test_what_is_there_and_right_is_kept(here, in_process):
    assert run()["computed"] == 7
    before = contents(here / "out")
    assert run()["computed"] == 0 and contents(here / "out") == before
    shards = sorted((here / "out/shards").iterdir())
    shards[0].unlink()
    shards[1].write_bytes(shards[1].read_bytes()[:-1])
    shards[2].write_bytes(shards[2].read_bytes().replace(b"photos", b"fotoss"))
    (here / "out/index.json").unlink()
    for part in ("out/header.json.0.part", "out/shards/x.part", "out/detections.part"):
        (here / part).write_bytes(b"of a run that was killed")
    facts = run()
    assert facts["computed"] in (5, 6) and facts["pictures"] == 7
    assert contents(here / "out") == before


def test_more_pictures_leave_the_shards_before_them(here, in_process):
    run()
    draw(here / "photos/z.png", 30)
    assert run()["computed"] == 2, "the last shard had room"
    assert sum(x.count for x in in_process) == 9
    fresh = run("fresh")
    assert fresh["pictures"] == 8 and contents(here / "out") == contents(here / "fresh")
    draw(here / "photos/z.png", size=(99, 99))
    assert run()["computed"] == 2, "it has another size"


def test_another_model_needs_another_folder(here, in_process):
    run()
    before = contents(here / "out")
    with pytest.raises(ValueError, match="in out is not .* began with: model.file other.onnx, not"):
        run(model=Other)
    assert contents(here / "out") == before
    run("new", model=Other)
    assert len({x.recipe for x in in_process}) == 8, "no file is named alike"


def test_two_runs_do_not_share_a_folder(here, in_process):
    (here / "out").mkdir()
    with locked(here / "out"), pytest.raises(ValueError, match="another run writes to out"):
        run()
    assert run()["pictures"] == 7


def test_a_lost_shard_is_no_success(here, monkeypatch):
    monkeypatch.setattr(command, "_engine", lambda todo, work, wish: iter(()))
    with pytest.raises(RuntimeError, match="0 rows of 7 pictures, 4 shards are missing"):
        run()
    assert not (here / "out/index.json").exists()


@pytest.mark.parametrize(
    "options, told",
    [
        ({"formats": ["csv"]}, "format 'csv'; allowed: jsonl, coco, parquet"),
        ({"engine": "spark"}, "engine 'spark'; allowed: local, ray"),
        ({"workers": 0}, "workers 0; allowed: 1 or more"),
        ({"review": -1}, "review -1; allowed: 0 or more"),
        ({"address": "here"}, "a cluster's address with engine 'local'; allowed with: ray"),
        ({"output": "photos/c/out"}, "photos/c/out lies in photos, whose pictures are read"),
    ],
)
def test_what_is_refused_before_anything_is_done(here, options, told):
    with pytest.raises(ValueError, match=told):
        run(**options)
    assert not (here / "out").exists()


def test_the_verb_offers_what_there_is():
    _, parsers = build_parser(load_verbs())
    actions = {x.dest: x for x in parsers["batch"]._actions}
    assert actions["format"].choices == command.FORMATS
    assert actions["engine"].choices == command.ENGINES
    assert actions["shard_size"].default == SHARD_SIZE


def test_processes_make_what_one_makes(here, monkeypatch):
    draw(here / "photos/dies.png", BLUE)
    monkeypatch.setattr("nanodet_d2.batch.process.ATTEMPTS", 1)  # for the time it takes
    assert run(workers=2)["unreadable"] == 3
    one = contents(here / "out")
    (died,) = (x for x in one.values() if b"its process died, signal 9" in x)
    assert died.count(b"\n") == 2, "the other one of its shard has its row"
    for path in sorted((here / "out/shards").iterdir()):
        if path.read_bytes() != died:
            path.unlink()
    run(workers=1)
    assert contents(here / "out") == one


def test_parquet_has_the_same_rows(here, in_process):
    parquet = pytest.importorskip("pyarrow.parquet")
    (here / "photos" / "un\udcffprintable.png").write_bytes(b"")
    assert run(formats=["parquet"])["files"][1] == "out/parquet"
    table = parquet.read_table(here / "out/parquet")
    index = json.loads((here / "out/index.json").read_text())
    rows = [json.loads(line) for shard in index["shards"]
            for line in (here / "out/shards" / shard["file"]).read_text().splitlines()]  # fmt: skip
    assert rows[-1]["file_name"] == "photos/un\udcffprintable.png"
    rows[-1]["file_name"] = "photos/un\\udcffprintable.png"
    assert table.to_pylist() == rows
    header = json.loads(table.schema.metadata[b"nanodet_d2"])
    assert header == json.loads((here / "out/header.json").read_text())
    before = contents(here / "out")
    run(formats=["parquet"])
    assert contents(here / "out") == before


def test_parquet_comes_in_files_of_whole_shards(here, in_process, monkeypatch):
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr("nanodet_d2.batch.parquet.ROWS_PER_FILE", 4)
    run(formats=["parquet"])
    files = sorted((here / "out/parquet").iterdir())
    assert [x.name for x in files] == ["part-00000.parquet", "part-00001.parquet"]
    assert [parquet.read_metadata(x).num_rows for x in files] == [4, 3]


def test_uncertainty_is_that_of_boxes_in_doubt():
    assert uncertainty([]) == uncertainty([0.05, 0.9]) == 0
    assert uncertainty([0.15, 0.55]) == pytest.approx(0)
    assert uncertainty([0.35]) == 1 and uncertainty([0.25, 0.45]) == pytest.approx(1)
    rows = [{"detections": [{"score": x} for x in scores]}
            for scores in ([0.9], [0.3], [0.35, 0.4], [], [0.3])]  # fmt: skip
    assert [(doubt, number) for doubt, number, _ in most_uncertain(rows, 9)] == [
        (1.75, 2), (0.75, 1), (0.75, 4)
    ]  # fmt: skip
    assert [number for _, number, _ in most_uncertain(iter(rows), 2)] == [2, 1]


def test_a_review_is_ready_to_be_labelled(here, in_process):
    facts = run(review=2)
    assert facts["to_label"] == 2 and facts["review"] == "out/review/review.json"
    content = json.loads((here / "out/review/review.json").read_text())
    first, second = content["images"]
    assert (first["file_name"], first["source"]) == ("0001_a.png", "photos/a.png")
    assert first["uncertainty"] == pytest.approx(1 - abs(90 / 255 - 0.35) / 0.2, abs=1e-4)
    assert second["source"] == "photos/c/d.png"
    assert [x["image_id"] for x in content["annotations"]] == [1], "0.24 is rather none"
    for image in content["images"]:
        original = (here / image["source"]).read_bytes()
        assert (here / "out/review/images" / image["file_name"]).read_bytes() == original
        preview = cv2.imread(f"out/review/previews/{image['file_name']}.jpg")
        assert preview.shape == (16, 24, 3) and preview.std() > 5, "a box is drawn"
    COCO(str(here / "out/review/review.json"))
    before = contents(here / "out")
    run(review=2)
    assert contents(here / "out") == before
    (here / "out/review/review.json").write_text("the work of a day")
    with pytest.raises(ValueError, match="out/review is there, and not what would be written"):
        run(review=2)
    assert (here / "out/review/review.json").read_text() == "the work of a day"


def test_names_of_copies():
    assert copy_name(7, "s3://b/x/Straße 1.jpg?sig=a/b") == "0007_Stra_e_1.jpg"
    assert (
        len(copy_name(1, "x" * 500 + ".png")) == 65 and copy_name(1, "a.tar/b.png") == "0001_b.png"
    )


def test_the_contract_in_the_header_is_whole(here, in_process):
    run()
    contract = json.loads((here / "out/header.json").read_text())["contract"]
    assert contract["score_threshold"] == Fake.metadata.score_threshold
    assert contract["input_height"] == 32 and contract["format"] == "torch"
