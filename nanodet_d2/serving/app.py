"""The application that a server runs (ASGI): addresses, answers, time limits."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Future
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from nanodet_d2.runtime.images import ImageError

from .body import Body, Picture, read_body
from .limits import RETRY_AFTER, Refusal
from .metrics import CONTENT_TYPE, FAILED, READ, UNREADABLE
from .pool import Row
from .service import Service

CLIENT_GONE = 499  # in the metrics alone, since nobody reads the answer
_PARAMETERS = ("threshold",)


def make_app(service: Service) -> Starlette:
    """The application of a service, which it closes when it ends itself.

    Every answer but that of ``/metrics`` is json. Those to ``/detect`` have ``error``, which is
    null where all is well.
    """
    api = _Api(service)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await asyncio.to_thread(service.close)

    app = Starlette(
        routes=[
            Route("/detect", api.detect, methods=["POST"]),
            Route("/detect/{model}", api.detect, methods=["POST"]),
            Route("/models", api.models),
            Route("/health", api.health),
            Route("/ready", api.ready),
            Route("/metrics", api.metrics),
        ],
        exception_handlers={HTTPException: _http_error, Exception: _server_error},
        lifespan=lifespan,
    )
    app.state.service = service
    return app


class _Api:
    """What the addresses do."""

    def __init__(self, service: Service):
        self.service = service

    async def detect(self, request: Request) -> Response:
        """The row of the picture that the body is, or ``images``, a row for each of its list."""
        begin, status = time.perf_counter(), 500
        name = request.path_params.get("model", self.service.default)
        try:
            response = await self._answer(request, name)
            status = response.status_code
            return response
        finally:
            known = name if name in self.service.pools else ""
            self.service.metrics.answered(known, status, time.perf_counter() - begin)

    async def models(self, request: Request) -> Response:
        """What models there are, and what a request may be."""
        limits = vars(self.service.limits)
        return JSONResponse({"models": self.service.describe(), "limits": limits})

    async def health(self, request: Request) -> Response:
        """200 while the process can go on, 503 when it has to be started again."""
        return _state(self.service.healthy)

    async def ready(self, request: Request) -> Response:
        """200 while a request would be taken, 503 when others should have it."""
        return _state(self.service.ready)

    async def metrics(self, request: Request) -> Response:
        return Response(self.service.metrics.text(), media_type=CONTENT_TYPE)

    async def _answer(self, request: Request, name: str) -> Response:
        try:
            return JSONResponse(await self._detect(request, name))
        except Refusal as refusal:
            return _refused(refusal)

    async def _detect(self, request: Request, name: str) -> dict[str, Any]:
        pool = self.service.pool(name)
        threshold = _threshold(request)
        end = time.monotonic() + self.service.limits.timeout
        with self.service.place():
            body = await self._read(request, end)
            answers = [pool.submit(*picture) for picture in body.pictures]
            await self._wait(request, answers, end)
        rows = [self._row(name, *pair, threshold) for pair in zip(body.pictures, answers)]
        if not body.single:
            return {"images": rows, "error": None}
        if rows[0]["error"] is not None:
            raise Refusal(422, rows[0]["error"])
        return rows[0]

    async def _read(self, request: Request, end: float) -> Body:
        """The body, if it is there before the time ``end``."""
        limits = self.service.limits
        try:
            return await asyncio.wait_for(read_body(request, limits), end - time.monotonic())
        except asyncio.TimeoutError as error:
            reason = f"the body was not there after {limits.timeout:g} s"
            raise Refusal(408, reason) from error
        except ClientDisconnect as error:
            raise Refusal(CLIENT_GONE, "the client went away") from error

    async def _wait(self, request: Request, answers: Sequence[Future[Row]], end: float) -> None:
        """Until all is answered; what is not by the time ``end``, or for a client that went away,
        is not computed any more, unless it has begun."""
        pending = [asyncio.wrap_future(x) for x in answers]
        done = asyncio.ensure_future(asyncio.wait(pending))
        gone = asyncio.ensure_future(_disconnected(request))
        try:
            await asyncio.wait(
                {done, gone}, timeout=end - time.monotonic(), return_when=asyncio.FIRST_COMPLETED
            )
            if done.done():
                return
            if gone.done():
                raise Refusal(CLIENT_GONE, "the client went away")
            reason = f"no answer within {self.service.limits.timeout:g} s"
            raise Refusal(504, reason, retry_after=RETRY_AFTER)
        finally:
            done.cancel()
            gone.cancel()
            for future in pending:
                if not future.cancel():
                    future.exception()  # else asyncio tells that nobody looked at it

    def _row(
        self, name: str, picture: Picture, answer: Future[Row], threshold: float | None
    ) -> dict[str, Any]:
        """A row as ``nanodet-d2 batch`` writes it."""
        error = answer.exception()
        if isinstance(error, ImageError):
            self.service.metrics.picture(name, UNREADABLE)
            return {"file_name": picture.name, "width": None, "height": None,
                    "error": error.reason, "detections": []}  # fmt: skip
        if error is not None:
            self.service.metrics.picture(name, FAILED)
            raise Refusal(500, str(error))
        self.service.metrics.picture(name, READ)
        row = answer.result()
        found = row.pop("detections")
        if threshold is not None:
            found = [x for x in found if x["score"] > threshold]
        return {**row, "error": None, "detections": found}


async def _disconnected(request: Request) -> None:
    """Ends when the client, whose body is read, goes away."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _threshold(request: Request) -> float | None:
    """The lowest score that is wanted, if the address names one."""
    given = request.query_params
    unknown = [name for name in given if name not in _PARAMETERS]
    if unknown:
        raise Refusal(400, f"there is no parameter {unknown[0]!a}; allowed: {_PARAMETERS[0]}")
    if "threshold" not in given:
        return None
    with contextlib.suppress(ValueError):
        value = float(given["threshold"])
        if math.isfinite(value) and 0 <= value <= 1:
            return value
    raise Refusal(400, f"threshold {given['threshold']!a}; allowed: 0 to 1")


def _refused(refusal: Refusal) -> Response:
    headers = {}
    if refusal.retry_after is not None:
        headers["Retry-After"] = str(refusal.retry_after)
    if refusal.status == 408:
        headers["Connection"] = "close"  # the rest of the body is not waited for
    return JSONResponse({"error": refusal.reason}, refusal.status, headers)


def _state(good: bool) -> Response:
    return JSONResponse({"ok": good}, 200 if good else 503)


async def _http_error(request: Request, error: Exception) -> Response:
    """Of Starlette itself: an unknown address, another method."""
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _server_error(request: Request, error: Exception) -> Response:
    """Of a mistake in here, which the server logs."""
    return JSONResponse({"error": "the server failed; its log says why"}, 500)
