"""From bodies to pictures: what is read, what is refused, and that nothing else happens."""

from __future__ import annotations

import asyncio
import base64
import json
import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import Request

from nanodet_d2.serving.body import Body, read_body
from nanodet_d2.serving.limits import Limits, Refusal
from tests.serving.fake import form

JSON, FORM = "application/json", "multipart/form-data; boundary=xyz"


def read(
    body: bytes | list[bytes], kind: str, *, read_all: bool = True, limits=None, **headers: str
) -> Body:
    """The pictures of a body that comes in one, or in pieces, of which what is left is not read."""
    pieces = [body] if isinstance(body, bytes) else body
    sent = {"content-type": kind, **{k.replace("_", "-"): v for k, v in headers.items()}}
    scope = {
        "type": "http",
        "headers": [(k.encode(), v.encode("latin-1")) for k, v in sent.items()],
    }

    async def receive():
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    try:
        return asyncio.run(read_body(Request(scope, receive), limits or Limits(max_bytes=4000)))
    finally:
        assert not pieces or not read_all


def listed(*contents: bytes) -> bytes:
    return json.dumps({"images": [base64.b64encode(x).decode() for x in contents]}).encode()


@pytest.mark.parametrize("kind", ["image/jpeg", "application/octet-stream", "", "text/plain"])
def test_any_other_body_is_one_picture(kind):
    assert read([b"ab", b"", b"cd"], kind) == Body([("0", b"abcd")], single=True)
    assert read(b"", kind) == Body([("0", b"")], single=True)


def test_forms_have_files_and_json_has_base64():
    body, kind = form(("a.jpg", b"one"), ("ü/../b.png", b"\r\ntwo\0"), ("", b"3"))
    pictures = [("a.jpg", b"one"), ("ü/../b.png", b"\r\ntwo\0"), ("2", b"3")]
    assert read(body, kind) == Body(pictures, single=False)
    assert read([body[i : i + 1] for i in range(len(body))], kind) == Body(pictures, single=False)
    expected = Body([("0", b"one"), ("1", b"")], single=False)
    assert read(listed(b"one", b""), JSON) == expected
    assert read(listed(b"one", b""), "Application/JSON; charset=utf-8") == expected


def test_names_are_repeated_in_one_short_line():
    body, kind = form(("x" * 300, b"1"), ("tab\there", b"2"))
    assert [x.name for x in read(body, kind).pictures] == ["x" * 255, "tab\\there"]


@pytest.mark.parametrize(
    "body, kind, told",
    [
        (b"", JSON, "body is no json; allowed: {"),
        (b"[" * 3000, JSON, "body is no json"),
        (b"\xff\xfe\xff", JSON, "body is no json"),
        (b"[]", JSON, "another form of json"),
        (b'{"image": "YQ=="}', JSON, "another form of json"),
        (b'{"images": "YQ=="}', JSON, "another form of json"),
        (b'{"images": [1]}', JSON, "another form of json"),
        (b'{"images": ["YQ=="], "url": "x"}', JSON, "another form of json"),
        (b'{"images": []}', JSON, "no pictures; allowed: 1 to 16"),
        (b'{"images": ["YQ==", "file:///etc/passwd"]}', JSON, "images[1] is no base64; addresses"),
        (b'{"images": ["http://localhost/a.jpg"]}', JSON, "images[0] is no base64"),
        (b'{"images": ["/etc/passwd"]}', JSON, "images[0] is no base64"),
        ('{"images": ["ü"]}'.encode(), JSON, "images[0] is no base64"),
        (listed(*[b"x"] * 17), JSON, "17 pictures; allowed: 1 to 16"),
        (b"", FORM, "no pictures"),
        (b"anything", FORM, "multipart body cannot be read: "),
        (b"anything", "multipart/form-data", "Missing boundary in multipart."),
        (form(*[("a", b"x")] * 17)[0], FORM, "Too many files. Maximum number of files is 16."),
        (form(("a", b"x"))[0].replace(b'; filename="a"', b""), FORM, "part 'image' is no file"),
    ],
)
def test_other_forms_are_told(body, kind, told):
    with pytest.raises(Refusal) as caught:
        read(body, kind, read_all=False)
    assert caught.value.status == 400 and told in caught.value.reason
    assert "\n" not in caught.value.reason


@pytest.mark.parametrize("kind", ["image/png", JSON, FORM])
def test_what_is_too_large_is_refused_while_it_comes(kind):
    pieces = [form(("a", b""))[0].partition(b"\r\n\r\n")[0] + b"\r\n\r\n", *[b"a" * 1000] * 9]
    with pytest.raises(Refusal, match="more than 4000 bytes") as caught:
        read(pieces, kind, read_all=False)
    assert caught.value.status == 413 and len(pieces) == 5
    with pytest.raises(Refusal, match="more than 4000 bytes"):
        read([b""], kind, read_all=False, content_length="4001")
    with pytest.raises(Refusal, match="more than 4000 bytes"):
        read([b""], kind, read_all=False, content_length="9" * 5000)


def test_compressed_bodies_are_refused():
    assert read(b"a", "image/png", content_encoding="identity").single
    with pytest.raises(Refusal, match="Content-Encoding gzip; allowed: none") as caught:
        read(b"a", "image/png", read_all=False, content_encoding="gzip")
    assert caught.value.status == 415


def test_large_files_stay_in_memory(monkeypatch):
    def fail(*_):
        raise AssertionError("written to a disk")

    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", fail)
    data = bytes(3 << 20)
    body, kind = form(("a", data))
    found = read([body[i : i + 65536] for i in range(0, len(body), 65536)], kind, limits=Limits())
    assert found.pictures == [("a", data)]


LINES = [*form(("a", b"x"))[0].split(b"\r\n"), b"\r\n", b"--", b"\0", b'"']
BODIES = st.binary(max_size=300) | st.lists(st.sampled_from(LINES), max_size=12).map(b"\r\n".join)
KINDS = [JSON, FORM, 'multipart/form-data; boundary="', "multipart/form-data"]


@given(BODIES, st.sampled_from(KINDS))
@settings(max_examples=150, deadline=None)
def test_no_body_makes_it_fail(body, kind):
    try:
        found = read(body, kind, read_all=False)
    except Refusal as refusal:
        assert refusal.status == 400 and refusal.reason
    else:
        assert 1 <= len(found.pictures) <= 16 and not found.single


@pytest.mark.parametrize(
    "given, told",
    [
        ({"max_bytes": 0}, "max_bytes 0; allowed: 1 or more"),
        ({"queue": -1}, "queue -1; allowed: 1 or more"),
        ({"max_images": 0}, "max_images 0; allowed"),
        ({"timeout": 0}, "timeout 0; allowed: more than 0, to 3600 seconds"),
        ({"timeout": float("nan")}, "timeout nan; allowed"),
    ],
)
def test_bounds_that_let_nothing_through(given, told):
    with pytest.raises(ValueError, match=told):
        Limits(**given)
