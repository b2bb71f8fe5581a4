"""Shards: so many consecutive pictures each, named by what their rows follow from."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import zlib
from collections.abc import Iterable, Iterator

from .items import Item

_DIGITS = 20  # of SHA-256 in hexadecimal: 80 bits, so no two of a billion names are alike


@dataclasses.dataclass(frozen=True)
class Shard:
    """Some consecutive pictures.

    Attributes:
        recipe: hash of the pictures and of the model with its settings.
        first: number of its first picture, from 0.
        count: of its pictures.
        packed: the pictures, small enough that ten million take 200 MB or so.
    """

    recipe: str
    first: int
    count: int
    packed: bytes

    def items(self) -> list[Item]:
        return unpack(self.packed)


def plan(items: Iterable[Item], size: int, key: str) -> Iterator[Shard]:
    """Cut pictures into shards.

    Args:
        size: pictures of each but the last.
        key: of the model and its settings.

    Raises:
        ValueError: for a size below 1.
    """
    if size < 1:
        raise ValueError(f"shard size {size}; allowed: 1 or more")
    rest, first = iter(items), 0
    while chunk := list(itertools.islice(rest, size)):
        text = json.dumps(chunk, separators=(",", ":")).encode()
        recipe = digest(key.encode() + b"\n" + text)
        yield Shard(recipe, first, len(chunk), zlib.compress(text, 1))
        first += len(chunk)


def unpack(packed: bytes) -> list[Item]:
    return [Item(*entry) for entry in json.loads(zlib.decompress(packed))]


def digest(data: bytes) -> str:
    """The hash that stands in names of files."""
    return hashlib.sha256(data).hexdigest()[:_DIGITS]
