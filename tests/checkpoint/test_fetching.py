"""Weights by URL: what is cached, and what a checksum accepts. Servers of this machine only."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

from nanodet_d2.checkpoint import read_weights
from nanodet_d2.checkpoint.fetching import cached_path, local_path, sha256
from tests.web_server import serve


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    return tmp_path / "cache"


def weights(tmp_path: Path, value: float) -> bytes:
    torch.save({"model": {"a": torch.full((1,), value)}}, tmp_path / f"{value}.pth")
    return (tmp_path / f"{value}.pth").read_bytes()


def test_a_file_of_one_host_is_not_taken_for_that_of_another(tmp_path):
    with serve(weights(tmp_path, 1.0)) as (one, asked), serve(weights(tmp_path, 2.0)) as (two, _):
        for _ in range(2):
            assert read_weights(f"{one}/release/m.pth").state_dict["a"].tolist() == [1.0]
            assert read_weights(f"{two}/release/m.pth").state_dict["a"].tolist() == [2.0]
        assert asked == ["/release/m.pth"]  # the second time it is cached


def test_each_url_has_a_place_below_its_host(cache):
    urls = ["https://a.org/x/m.pth", "http://a.org/x/m.pth", "https://a.org/x/m.pth?v=2"]
    urls += ["https://b.org/x/m.pth", "https://a.org/y/m.pth"]
    paths = [cached_path(url) for url in urls]
    assert len(set(paths)) == 5 and {x.name for x in paths} == {"m.pth"}
    assert [x.parts[-3] for x in paths] == ["a.org", "a.org", "a.org", "b.org", "a.org"]
    for odd in (
        "https://../../m.pth",
        "https://a.org/../../../m.pth",
        "https://u:p@a.org/%2e%2e%2fm",
    ):
        path = cached_path(odd).resolve()
        assert path.is_relative_to(cache / "nanodet_d2") and "u:p" not in str(path)
    assert len(cached_path("https://a.org/" + "m" * 500).name) == 100
    assert cached_path("https://a.org").name == "file"


def test_a_checksum_accepts_one_content_only(tmp_path, caplog):
    content = weights(tmp_path, 1.0)
    good, bad = hashlib.sha256(content).hexdigest(), "0" * 64
    with serve(content) as (url, asked), caplog.at_level("INFO", logger="nanodet_d2"):
        place = f"{url}/m.pth"
        assert read_weights(f"{place}#sha256={good.upper()}").state_dict["a"].tolist() == [1.0]
        assert f"{place}#sha256={good}" in caplog.text  # for whoever wants to pin it
        with pytest.raises(ValueError, match=f"m.pth has the sha256 {good}; allowed .*: {bad}"):
            read_weights(f"{place}#sha256={bad}")
        assert not cached_path(place).exists()  # forgotten: it may have been a broken transfer
        read_weights(place)
        assert len(asked) == 2
        for wrong in ("", "12", good + "0", "x" * 64):
            with pytest.raises(ValueError, match="allowed: 64 hexadecimal digits"):
                local_path(f"{place}#sha256={wrong}")


def test_a_cached_file_that_has_changed_is_refused(tmp_path):
    content = weights(tmp_path, 1.0)
    with serve(content) as (url, asked):
        path = Path(local_path(f"{url}/m.pth"))
        beside = path.with_name("m.pth.sha256")
        assert beside.read_text() == f"{hashlib.sha256(content).hexdigest()}  m.pth\n"
        path.write_bytes(b"other")
        with pytest.raises(
            ValueError, match="m.pth, which was fetched .*has changed since.*Remove"
        ):
            local_path(f"{url}/m.pth")
        path.unlink()
        assert local_path(f"{url}/m.pth") == str(path) and len(asked) == 2
        beside.unlink()  # as an earlier version left it
        assert local_path(f"{url}/m.pth") == str(path) and beside.is_file()
        beside.write_text("")
        with pytest.raises(ValueError, match="was not written down"):
            local_path(f"{url}/m.pth")


def test_a_local_file_may_be_pinned_too(tmp_path):
    path = tmp_path / "m.pth"
    path.write_bytes(b"abc")  # its sha256 is of the standard's own examples
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256(str(path)) == digest and local_path(f"{path}#sha256={digest}") == str(path)
    with pytest.raises(ValueError, match=f"has the sha256 {digest}"):
        local_path(f"{path}#sha256={'0' * 64}")
    assert path.is_file()  # it is the user's
    with pytest.raises(FileNotFoundError, match="nowhere.pth"):
        read_weights(f"{tmp_path / 'nowhere.pth'}#sha256={digest}")


def test_a_url_that_gives_nothing_is_named(cache):
    with serve(b"") as (url, _):
        for name in ("absent.pth", "empty.pth"):
            with pytest.raises(ValueError, match=f"{name} cannot be fetched"):
                read_weights(f"{url}/{name}")
    with pytest.raises(ValueError, match="m.pth cannot be fetched"):
        read_weights(f"{url}/m.pth")  # nobody answers there any more
    assert not [x for x in cache.rglob("*") if x.suffix in (".pth", ".tmp")]
