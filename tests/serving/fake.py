"""A detector without a network, pictures for it, and a client without a network."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import unquote

import cv2
import numpy as np

from nanodet_d2.runtime import Detections
from nanodet_d2.serving.limits import Limits
from nanodet_d2.serving.service import Service
from tests.fake_file import metadata

METADATA = metadata(32, 48, dynamic=True)
RED = (0, 0, 255)  # BGR


class Fake:
    """Finds two lamps in every picture, the first with the score of its grey level; fails on red.

    Attributes:
        gate: calls wait for it.
        entered: set when a call waits.
        calls: pictures of each call, but for the one that warms up.
    """

    backend, path, max_pixels = "fake", "fake.onnx", 10_000
    metadata, class_names = METADATA, METADATA.class_names

    def __init__(self, seconds: float = 0.0) -> None:
        self.gate, self.entered = threading.Event(), threading.Event()
        self.gate.set()
        self.calls: list[int] = []
        self._seconds = seconds

    def __call__(self, images: np.ndarray | Sequence[np.ndarray]) -> Any:
        if isinstance(images, np.ndarray):
            return self._find(images)
        self.entered.set()
        assert self.gate.wait(30)
        self.calls.append(len(images))
        time.sleep(self._seconds)
        return [self._find(x) for x in images]

    def _find(self, image: np.ndarray) -> Detections:
        height, width = image.shape[:2]
        color = tuple(image[0, 0].tolist())
        if color == RED:
            raise RuntimeError("no kernel for red")
        return Detections(
            xyxy=np.array([[0, 0, width / 2, height], [1, 1, 3, 3]], np.float32),
            confidence=np.array([color[0] / 255, 0.1], np.float32),
            class_id=np.array([1, 0]),
            class_names=self.class_names,
            image_size=(height, width),
        )


def picture(color: int | tuple[int, int, int] = 204, size=(24, 16)) -> bytes:
    """A PNG file of one colour or grey level."""
    done, data = cv2.imencode(".png", np.full((size[1], size[0], 3), color, np.uint8))
    assert done
    return data.tobytes()


def row(grey: int = 204, name: str = "0", threshold: float = -1.0) -> dict[str, Any]:
    """What is right for a picture of the default size."""
    found = [
        {"category_id": 2, "category": "lamp", "bbox": [0.0, 0.0, 12.0, 16.0], "area": 192.0,
         "score": round(grey / 255, 5)},
        {"category_id": 1, "category": "dog", "bbox": [1.0, 1.0, 2.0, 2.0], "area": 4.0,
         "score": 0.1},
    ]  # fmt: skip
    kept = [x for x in found if x["score"] > threshold]
    return {"file_name": name, "width": 24, "height": 16, "error": None, "detections": kept}


def form(*parts: tuple[str, bytes]) -> tuple[bytes, str]:
    """A multipart body of files (name, content), and its type."""
    body = b""
    for name, data in parts:
        head = f'--xyz\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n\r\n'
        body += head.encode() + data + b"\r\n"
    return body + b"--xyz--\r\n", "multipart/form-data; boundary=xyz"


def service(*detectors: Fake, max_batch: int = 1, **limits) -> Service:
    """A service of one model, "m", whose threads have these detectors."""
    waiting = list(detectors or [Fake()])
    return Service(
        {"m": lambda: waiting.pop(0)},
        limits=Limits(**limits),
        workers=len(waiting),
        max_batch=max_batch,
    )


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def ask(
    app: Any,
    target: str = "/detect",
    body: bytes | Sequence[bytes] = b"",
    *,
    method: str = "POST",
    kind: str = "image/png",
    headers: dict[str, str] | None = None,
    complete: bool = True,
    gone: asyncio.Event | None = None,
) -> Answer:
    """The answer of an ASGI application.

    Args:
        body: in one, or in pieces.
        complete: whether the body comes to its end.
        gone: when it is set, the client goes away.
    """
    path, _, query = target.partition("?")
    sent = {"content-type": kind, **(headers or {})}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query.encode(),
        "headers": [(k.lower().encode(), v.encode("latin-1")) for k, v in sent.items()],
    }
    pieces = [body] if isinstance(body, bytes) else list(body)
    messages: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if pieces:
            piece = pieces.pop(0)
            return {
                "type": "http.request",
                "body": piece,
                "more_body": bool(pieces) or not complete,
            }
        await (gone or asyncio.Event()).wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        messages.append(message)

    await app(scope, receive, send)
    start, *rest = messages
    found = {k.decode(): v.decode("latin-1") for k, v in start["headers"]}
    return Answer(start["status"], found, b"".join(x["body"] for x in rest))
