"""Checkpoint files by path or URL, whose content a checksum may pin."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from detectron2.utils.file_io import PathManager
from iopath.common.download import download
from iopath.common.file_io import file_lock, get_cache_dir

logger = logging.getLogger(__name__)

_SCHEMES = ("http", "https", "ftp")
_MARK = "#sha256="  # as in pip's URLs
_DIGEST = re.compile(r"[0-9a-fA-F]{64}")
_MAX_NAME = 100  # characters of a cached file's name, which the system limits
_BLOCK = 2**20


def local_path(source: str) -> str:
    """Path of a file, fetched into a cache if it is a URL, where its checksum is kept as well.

    Args:
        source: a path, a URL, or what else detectron2's ``PathManager`` knows; with
            ``#sha256=<64 hexadecimal digits>`` at its end a file of another content is refused,
            and one that was fetched is forgotten.

    Raises:
        ValueError: for another content, a checksum of another form, a URL that gives no file, or a
            cached file that has changed since it was fetched.
    """
    place, mark, digest = str(source).partition(_MARK)
    if mark and not _DIGEST.fullmatch(digest):
        raise ValueError(f"{place} has the checksum {digest!r}; allowed: 64 hexadecimal digits")
    fetched = urlsplit(place).scheme in _SCHEMES
    path = _fetch(place) if fetched else PathManager.get_local_path(place)
    if not mark or not os.path.isfile(path):
        return path
    found = sha256(path)
    if found != digest.lower():
        if fetched:
            os.remove(path)
            _written_down(Path(path)).unlink(missing_ok=True)
        raise ValueError(f"{place} has the sha256 {found}; allowed by {source}: {digest.lower()}")
    return path


def suffix_of(source: str) -> str:
    """The end of the name of a path's or a URL's file, such as ".pth", without a checksum."""
    place = str(source).partition(_MARK)[0]
    if urlsplit(place).scheme in _SCHEMES:
        place = urlsplit(place).path
    return PurePosixPath(place).suffix


def sha256(path: str) -> str:
    """Of a file's content, in hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def cached_path(url: str) -> Path:
    """Where what a URL gives is kept: each URL has a folder of its own, below that of its host.

    ``PathManager``'s cache goes by the URL's path alone: a file of one host would be taken for
    that of another.
    """
    parts = urlsplit(url)
    host = re.sub(r"[^\w.-]", "_", parts.netloc.rpartition("@")[2]).lstrip(".") or "_"
    name = re.sub(r"[^\w.-]", "_", unquote(PurePosixPath(parts.path).name)).lstrip(".")
    key = hashlib.sha256(url.encode()).hexdigest()[:16]
    return Path(get_cache_dir(), "nanodet_d2", host, key, name[-_MAX_NAME:] or "file")


def _fetch(url: str) -> str:
    path = cached_path(url)
    with file_lock(str(path)):  # of the processes that start together only one fetches
        if path.is_file():
            _require_unchanged(path, url)
            logger.info("%s is cached as %s", url, path)
            return str(path)
        try:
            download(url, str(path.parent), filename=path.name)  # under another name, then renamed
        except OSError as error:
            raise ValueError(f"{url} cannot be fetched: {error}") from error
        digest = _write_down(path)
    logger.info("%s: fetched; to accept nothing else: %s%s%s", path, url, _MARK, digest)
    return str(path)


def _written_down(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _write_down(path: Path) -> str:
    """Write a file's checksum beside it, as ``sha256sum`` does, and return it."""
    digest, unfinished = sha256(str(path)), path.with_name(path.name + ".sha256.unfinished")
    unfinished.write_text(f"{digest}  {path.name}\n", encoding="utf-8")
    os.replace(unfinished, _written_down(path))
    return digest


def _require_unchanged(path: Path, url: str) -> None:
    if not _written_down(path).is_file():  # of an earlier version, or killed in between
        _write_down(path)
        return
    words = _written_down(path).read_text(encoding="utf-8", errors="replace").split()
    found = sha256(str(path))
    if words[:1] != [found]:
        raise ValueError(
            f"{path}, which was fetched from {url}, has changed since: its sha256 is {found}, and "
            f"was {words[0] if words else 'not written down'}. Remove it to have it fetched again"
        )
