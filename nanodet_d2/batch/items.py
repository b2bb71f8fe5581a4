"""Which pictures there are in what was named: folders, patterns, lists, tar archives, addresses."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Optional

from nanodet_d2.runtime.files import IMAGE_SUFFIXES

from .archives import members
from .stores import Store, is_pattern, is_remote, store_of, tidy

LISTS, ARCHIVES = (".txt", ".lst"), (".tar",)
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".zip")
logger = logging.getLogger(__name__)


class Item(NamedTuple):
    """A picture.

    Attributes:
        name: as its row has it: a path as it was named, or an address; of one in an archive the
            archive's name, a slash, and its own.
        size: bytes, if they are known.
        archive: name of the tar file that it lies in…
        offset: …from this byte on.
        problem: why nobody can read it, if that is known already.
    """

    name: str
    size: Optional[int] = None
    archive: Optional[str] = None
    offset: int = 0
    problem: Optional[str] = None


def list_items(inputs: Sequence[str]) -> Iterator[Item]:
    """All pictures of the inputs, each once, in an order that does not depend on the inputs' own.

    Args:
        inputs: paths or addresses. Of a folder these are its files that are named as pictures are,
            and the pictures of its tar files. A list (``.txt``, ``.lst``) names a picture or a tar
            file in each line, relative to the working folder. Any other file is a picture.

    Raises:
        FileNotFoundError: for an input that is not there, or a pattern that matches nothing.
        ValueError: if there is no picture at all, or for a compressed archive.
    """
    names = sorted(set(map(tidy, inputs)))
    once = len(names) == 1 and not is_pattern(names[0]) and _suffix(names[0]) not in LISTS
    seen: set[tuple[str, int]] = set()  # stays empty where nothing can be named twice
    count = repeated = 0
    for name in names:
        for item in _of_input(name):
            key = (item.name, item.offset)
            if key in seen:
                repeated += 1
                continue
            if not once:
                seen.add(key)
            count += 1
            yield item
    if count == 0:
        looked_for = ", ".join((*IMAGE_SUFFIXES, *ARCHIVES))
        raise ValueError(f"no pictures in {', '.join(inputs)}; looked for {looked_for}")
    if repeated:
        logger.info("%d pictures were named again; each has one row", repeated)


def _of_input(name: str) -> Iterator[Item]:
    store = store_of(name)
    # Of an address that ends as a picture's nothing is asked: there may be millions.
    known = is_remote(name) and _suffix(name) in (*IMAGE_SUFFIXES, *ARCHIVES, *LISTS)
    if is_pattern(name) and (is_remote(name) or not store.is_there(name)):
        found = store.matches(name)
        if not found:
            raise FileNotFoundError(f"{name} matches nothing")
        for match in map(tidy, found):
            yield from _of_folder(store, match) if store.is_folder(match) else _named(store, match)
    elif not known and store.is_folder(name):
        yield from _of_folder(store, name)
    elif known or store.is_there(name):
        yield from _of_file(store, name)
    else:
        raise FileNotFoundError(f"{name} is neither a file nor a folder, and matches nothing")


def _of_folder(store: Store, name: str) -> Iterator[Item]:
    for file, size in store.files(name):
        if _suffix(file) in ARCHIVES:
            yield from _of_archive(store, file)
        elif _suffix(file) in IMAGE_SUFFIXES:
            yield Item(file, size)


def _named(store: Store, name: str) -> Iterator[Item]:
    """What a pattern matches; other files that lie beside pictures are none."""
    if _suffix(name) in (*IMAGE_SUFFIXES, *ARCHIVES, *LISTS):
        yield from _of_file(store, name)


def _of_file(store: Store, name: str) -> Iterator[Item]:
    if _suffix(name) in ARCHIVES:
        yield from _of_archive(store, name)
    elif _suffix(name) in LISTS:
        yield from _of_list(store, name)
    elif name.lower().endswith(_COMPRESSED):
        raise ValueError(f"{name} is compressed: nothing in it can be found again. Allowed: .tar")
    else:
        yield Item(name, store.size(name))


def _of_list(store: Store, name: str) -> Iterator[Item]:
    with store.open(name) as file:
        for line in file:
            text = line.decode("utf-8", "surrogateescape").strip("\r\n\ufeff")
            if not text.strip():
                continue
            named = tidy(text)
            try:
                there = store_of(named)
            except ValueError as error:
                yield Item(named, problem=str(error))
                continue
            if _suffix(named) in ARCHIVES:
                yield from _of_archive(there, named)
            else:
                yield Item(named, there.size(named))


def _of_archive(store: Store, name: str) -> Iterator[Item]:
    """The pictures of a tar file; where it breaks off, one more, which says so."""
    try:
        with store.open(name) as file:
            for member in members(file):
                if _suffix(member.name) in IMAGE_SUFFIXES:
                    yield Item(f"{name}/{member.name}", member.size, name, member.offset)
    except Exception as error:  # of the storage, or of bytes that are no archive
        reason = " ".join(str(error).split()) or repr(error)
        yield Item(name, problem=f"not all of the archive can be listed: {reason}")


def _suffix(name: str) -> str:
    """Of the name's end; that of an address stands before its query."""
    end = name.rpartition("/")[2]
    if is_remote(name):
        end = end.partition("?")[0]
    stem, dot, suffix = end.rpartition(".")
    return f".{suffix.lower()}" if dot else ""
