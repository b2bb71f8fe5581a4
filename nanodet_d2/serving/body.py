"""From a request's body to the pictures in it, in memory.

A picture is its bytes and nothing else: names are only repeated in answers, and texts of a client
are never taken for a path or an address.
"""

from __future__ import annotations

import base64
import json
import sys
from typing import NamedTuple

from starlette.formparsers import MultiPartParser
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message, Receive

from nanodet_d2.runtime.images import printable

from .limits import Limits, Refusal

KEY = "images"  # of a json body
_NAME_LENGTH = 255  # characters of a client's name that are repeated
_DIGITS = 18  # of a length that is still a number


class Picture(NamedTuple):
    """A picture's file: what it is called in the answer, and its content."""

    name: str
    data: bytes


class Body(NamedTuple):
    """The pictures of a request; ``single`` if the body was one, and not a list."""

    pictures: list[Picture]
    single: bool


async def read_body(request: Request, limits: Limits) -> Body:
    """The pictures of a request: ``multipart/form-data`` with files, ``application/json`` with
    ``{"images": ["base64", …]}``, or a body of any other type, which is one picture itself.

    What kind of picture it is, its content tells.

    Raises:
        Refusal: 413 for a body that is too large, 415 for a compressed one, 400 for one of another
            form, or with too many pictures or none.
        ClientDisconnect: if it breaks off.
    """
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise Refusal(415, f"Content-Encoding {printable(encoding)}; allowed: none")
    _require_length(request.headers.get("content-length", "0"), limits.max_bytes)
    request = Request(request.scope, _counted(request.receive, limits.max_bytes))
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        pictures = await _of_form(request, limits.max_images)
    elif kind == "application/json":
        pictures = _of_json(await request.body(), limits.max_images)
    else:
        return Body([Picture("0", await request.body())], single=True)
    if not pictures:
        raise Refusal(400, f"no pictures; allowed: 1 to {limits.max_images}")
    return Body(pictures, single=False)


def _require_length(declared: str, max_bytes: int) -> None:
    """Refuse by the header alone, before a byte of the body is asked for."""
    if declared.isdecimal() and (len(declared) > _DIGITS or int(declared) > max_bytes):
        raise _too_large(max_bytes)


def _counted(receive: Receive, max_bytes: int) -> Receive:
    """``receive`` that refuses what goes on beyond so many bytes."""
    total = 0

    async def counted() -> Message:
        nonlocal total
        message = await receive()
        total += len(message.get("body", b""))
        if total > max_bytes:
            raise _too_large(max_bytes)
        return message

    return counted


def _too_large(max_bytes: int) -> Refusal:
    return Refusal(413, f"the body has more than {max_bytes} bytes, which is what is allowed")


class _InMemory(MultiPartParser):
    """Starlette's, which otherwise writes files of more than 1 MiB to a disk."""

    spool_max_size = sys.maxsize


async def _of_form(request: Request, max_images: int) -> list[Picture]:
    parser = _InMemory(
        request.headers, request.stream(), max_files=max_images, max_fields=max_images
    )
    try:
        form = await parser.parse()
    except (Refusal, ClientDisconnect):
        raise
    except Exception as error:  # a parser may raise anything on bytes that were made to fail
        reason = getattr(error, "message", "") or str(error)
        raise Refusal(400, f"multipart body cannot be read: {printable(reason)}") from error
    pictures = []
    for number, (key, part) in enumerate(form.multi_items()):
        if isinstance(part, str):
            raise Refusal(400, f"part {printable(key[:_NAME_LENGTH])!r} is no file")
        name = printable((part.filename or str(number))[:_NAME_LENGTH])
        pictures.append(Picture(name, await part.read()))
    return pictures


def _of_json(body: bytes, max_images: int) -> list[Picture]:
    wanted = f'allowed: {{"{KEY}": ["a picture\'s file in base64", …]}}'
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refusal(400, f"body is no json; {wanted}") from error
    listed = content.get(KEY) if isinstance(content, dict) and len(content) == 1 else None
    if not isinstance(listed, list) or not all(isinstance(x, str) for x in listed):
        raise Refusal(400, f"another form of json; {wanted}")
    if len(listed) > max_images:
        raise Refusal(400, f"{len(listed)} pictures; allowed: 1 to {max_images}")
    return [Picture(str(i), _decoded(text, i)) for i, text in enumerate(listed)]


def _decoded(text: str, number: int) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise Refusal(400, f"{KEY}[{number}] is no base64; addresses are not opened") from error
