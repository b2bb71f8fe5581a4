"""What is named is listed: each picture once, none left out, in one order."""

from __future__ import annotations

import io
import os
import random
import tarfile

import pytest

from nanodet_d2.batch.items import Item, list_items
from nanodet_d2.batch.rows import content, load
from nanodet_d2.batch.stores import store_of
from nanodet_d2.runtime.images import MAX_PIXELS, ImageError
from tests.batch.fake import draw


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The working folder: photos/ with two levels, and others beside."""
    monkeypatch.chdir(tmp_path)
    for name in ("photos/b.png", "photos/a/2.JPG", "photos/a/1.png", "street.png"):
        draw(tmp_path / name)
    (tmp_path / "photos/notes.md").write_text("no picture")
    return tmp_path


def names(*inputs: str) -> list[str]:
    return [x.name for x in list_items(inputs)]


def write_tar(path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def test_a_folder_is_walked_in_the_order_of_names(here):
    expected = ["photos/a/1.png", "photos/a/2.JPG", "photos/b.png"]
    assert names("photos") == names("./photos/") == expected
    assert names(".") == [*expected, "street.png"]
    sizes = [x.size for x in list_items(["photos"])]
    assert sizes == [os.path.getsize(x) for x in expected]


def test_neither_order_nor_repetition_of_inputs_matters(here, caplog):
    caplog.set_level("INFO", "nanodet_d2")
    everything = ["photos", "street.png", "photos/a", "photos/*.png", "photos/b.png", "./photos"]
    listed = list(list_items(everything))
    assert sorted(x.name for x in listed) == names("photos", "street.png")
    assert "4 pictures were named again" in caplog.text
    assert list(list_items(everything[::-1])) == listed


def test_patterns(here):
    assert names("photos/**/*.png") == ["photos/a/1.png", "photos/b.png"]
    assert names("photos/*") == ["photos/a/1.png", "photos/a/2.JPG", "photos/b.png"]
    assert names("photos/?.png") == ["photos/b.png"]
    draw(here / "odd[1].png")
    assert names("odd[1].png") == ["odd[1].png"]


def test_what_cannot_be_read_is_listed_all_the_same(here):
    os.symlink("nowhere.png", "photos/gone.png")
    os.mkfifo("photos/pipe.png")
    os.symlink(here / "photos/a", "photos/linked")  # of a folder: as predict, not followed
    listed = {x.name: x for x in list_items(["photos"])}
    assert list(listed)[-2:] == ["photos/gone.png", "photos/pipe.png"] and len(listed) == 5
    with pytest.raises(ImageError, match="no such file"):
        load(listed["photos/gone.png"], max_pixels=MAX_PIXELS)
    with pytest.raises(ImageError, match="not a regular file"):
        load(listed["photos/pipe.png"], max_pixels=MAX_PIXELS)


def test_a_list_names_pictures_and_archives(here):
    write_tar("some.tar", {"x.png": b"data"})
    lines = ["photos/b.png", "", "./photos/b.png", "nowhere.png", "some.tar", "odd://x/a.png"]
    (here / "list.txt").write_bytes("\r\n".join(lines).encode() + b"\nphotos/\xff.png\n")
    listed = list(list_items(["list.txt"]))
    expected = ["photos/b.png", "nowhere.png", "some.tar/x.png", "odd://x/a.png"]
    assert [x.name for x in listed] == [*expected, os.fsdecode(b"photos/\xff.png")]
    assert "odd" in listed[3].problem and listed[1].problem is None


def test_an_archive_is_read_where_its_pictures_lie(here):
    pictures = {"0.png": (here / "street.png").read_bytes(), "a/1.jpg": b"broken", "2.JPEG": b""}
    write_tar("shard.tar", {**pictures, "0.json": b"{}", "0.cls": b"1"})
    listed = list(list_items(["shard.tar"]))
    assert [x.name for x in listed] == [f"shard.tar/{x}" for x in pictures]
    assert [content(x) for x in listed] == list(pictures.values())
    assert load(listed[0], max_pixels=MAX_PIXELS).shape == (16, 24, 3)
    with pytest.raises(ImageError, match="not an image of the formats"):
        load(listed[1], max_pixels=MAX_PIXELS)
    with pytest.raises(ImageError, match="the file is empty"):
        load(listed[2], max_pixels=MAX_PIXELS)
    assert names(".")[3:6] == [f"shard.tar/{x}" for x in pictures], "in folders, too"


def test_an_archive_that_was_cut_anywhere_says_so(here):
    """A listed picture is whole, or says that it is not; what is not listed is told of."""
    rng = random.Random(0)
    pictures = {f"{i}.png": rng.randbytes(rng.randrange(1, 3000)) for i in range(5)}
    write_tar("whole.tar", pictures)
    data = (here / "whole.tar").read_bytes()
    ends = [x.offset + x.size for x in list_items(["whole.tar"])]
    padded = -(-ends[-1] // 512) * 512
    for cut in [0, 1, 511, 512, 513, *ends, *(x - 1 for x in ends), padded, *range(0, padded, 700)]:
        (here / "cut.tar").write_bytes(data[:cut])
        *listed, told = list_items(["cut.tar"])
        assert told.name == "cut.tar" and "not all of the archive" in told.problem, cut
        for item in listed:
            try:
                assert content(item) == pictures[item.name.partition("/")[2]]
            except OSError as error:
                assert "breaks off" in str(error) and item.offset + item.size > cut


def test_an_archive_with_a_damaged_header_says_so(here):
    write_tar("x.tar", {"0.png": b"1" * 600, "1.png": b"2" * 600})
    data = bytearray((here / "x.tar").read_bytes())
    second = next(x for x in list_items(["x.tar"]) if x.name == "x.tar/1.png")
    data[second.offset - 512 : second.offset - 400] = b"\xff" * 112
    (here / "x.tar").write_bytes(data)
    first, told = list_items(["x.tar"])
    assert first.name == "x.tar/0.png" and "after 1 files" in told.problem


@pytest.mark.parametrize(
    "inputs, kind, told",
    [
        (["nowhere"], FileNotFoundError, "nowhere is neither a file nor a folder"),
        (["photos/*.bmp"], FileNotFoundError, "matches nothing"),
        (["empty"], ValueError, "no pictures in empty; looked for .jpg"),
        (["x.tar.gz"], ValueError, "x.tar.gz is compressed"),
        (["odd://bucket/a"], ValueError, "odd"),
        (["zip::s3://bucket/a"], ValueError, "chained"),
    ],
)
def test_what_is_refused(here, inputs, kind, told):
    (here / "empty").mkdir()
    (here / "x.tar.gz").write_bytes(b"")
    with pytest.raises(kind, match=told):
        list(list_items(inputs))


def test_addresses(here):
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    data = (here / "street.png").read_bytes()
    write_tar("s.tar", {"0.png": data, "0.txt": b""})
    folder = "/of-this-test"
    memory.pipe(
        {f"{folder}/b.png": data, f"{folder}/a/1.jpg": b"broken", f"{folder}/notes.md": b"",
         f"{folder}/s.tar": (here / "s.tar").read_bytes()}
    )  # fmt: skip
    base = f"memory://{folder}"
    expected = [f"{base}/a/1.jpg", f"{base}/b.png", f"{base}/s.tar/0.png"]
    listed = list(list_items([base]))
    assert [x.name for x in listed] == expected
    assert listed[1] == Item(expected[1], size=len(data))
    assert content(listed[1]) == content(listed[2]) == data
    assert names(f"{base}/*.png", f"{base}/b.png") == expected[1:2]
    (here / "list.txt").write_text(f"{base}/nowhere.png\nmemory://{folder[1:]}/b.png\n")
    missing, there = list_items(["list.txt"])
    assert load(there, max_pixels=MAX_PIXELS).shape == (16, 24, 3)
    with pytest.raises(ImageError, match="nowhere.png cannot be used"):
        load(missing, max_pixels=MAX_PIXELS)
    with pytest.raises(FileNotFoundError, match="neither a file nor a folder"):
        names(f"{base}/nowhere")


def test_a_network_that_hesitates_is_asked_again(here, monkeypatch):
    fsspec = pytest.importorskip("fsspec")
    fsspec.filesystem("memory").pipe("/hesitates/a.png", b"data")
    store = store_of("memory://hesitates/a.png")
    failures, opened = [OSError("reset"), TimeoutError()], store.open

    def open_later(name):
        if failures:
            raise failures.pop()
        return opened(name)

    monkeypatch.setattr(store, "open", open_later)
    monkeypatch.setattr("nanodet_d2.batch.rows.time.sleep", lambda seconds: None)
    assert content(Item("memory://hesitates/a.png")) == b"data" and not failures
