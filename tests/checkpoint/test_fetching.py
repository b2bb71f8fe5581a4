"""Weights by URL: what is cached, and what a checksum accepts. Servers of this machine only."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from nanodet_d2.checkpoint import read_weights
from nanodet_d2.checkpoint.fetching import cached_path, local_path, sha256


@contextlib.contextmanager
def serve(content: bytes):
    """URL of a server that answers every path with the same bytes, and the paths asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):  # noqa: N802
            asked.append(self.path)
            gone = "absent" in self.path
            self.send_response(404 if gone else 200)
            self.send_header("Content-Length", str(0 if gone else len(content)))
            self.end_headers()
            self.wfile.write(b"" if gone else content)

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


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
