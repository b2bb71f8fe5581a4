"""Seeded changes of valid files, for fuzz.py and the tests."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

_NASTY = (
    None, True, "", "x", "../../etc/passwd", "/etc/passwd", "\0", "a" * 5000, 0, -1, 1e308, 10**30,
    float("nan"), float("inf"), [], {}, [[]], [1, 2], {"id": {}}, "NaN", "1e999", "٣", "\ud800",
)  # fmt: skip
_NASTY_BYTES = (b"\0", b'"', b"<", b"]", b"{" * 999, b"9" * 99, b"\xff\xfe")


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """One to four changes of bytes: flipped, cut, repeated, inserted, or from elsewhere in it."""
    result = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(result) + 1)
        length = rng.choice((1, 1, 2, 8, 64, len(result) // 2))
        kind = rng.randrange(6)
        if kind == 0 and at < len(result):
            result[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del result[at : at + length]
        elif kind == 2:
            result[at:at] = result[at : at + length] * rng.choice((1, 2, 50))
        elif kind == 3:
            result[at:at] = rng.choice(
                (b"\0", b'"', b"<", b"]", b"{" * 999, b"9" * 99, b"\xff\xfe")
            )
        elif kind == 4 and result:
            start = rng.randrange(len(result))
            result[at : at + length] = result[start : start + length]
        else:
            del result[at:]
    return bytes(result)


def mutate_json(data: bytes, rng: random.Random) -> bytes:
    """One to four values of a json text replaced, removed or repeated."""
    content = json.loads(data)
    for _ in range(rng.randint(1, 4)):
        nodes = list(_containers(content))
        if not nodes:
            break
        node = rng.choice(nodes)
        key = rng.choice(list(node) if isinstance(node, dict) else range(len(node)))
        kind = rng.randrange(4)
        if kind == 0:
            del node[key]
        elif kind == 1 and isinstance(node, list):
            node.append(copy.deepcopy(node[key]))
        else:
            node[key] = copy.deepcopy(rng.choice(_NASTY))
    return json.dumps(content).encode()


def _containers(node: Any) -> Iterator[Any]:
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    if children:
        yield node
    for child in children:
        yield from _containers(child)


def mutate_words(data: bytes, rng: random.Random) -> bytes:
    """One to four numbers or words of a text replaced."""
    words = data.decode().replace(">", "> ").replace("<", " <").split(" ")
    for _ in range(rng.randint(1, 4)):
        words[rng.randrange(len(words))] = str(rng.choice(_NASTY))
    return " ".join(words).encode(errors="surrogatepass")
