"""What clients get: detections, refusals, states; and that no client gets another's answer."""

from __future__ import annotations

import asyncio
import base64
import builtins
import io
import json
import re

import pytest

from nanodet_d2.serving.app import make_app
from nanodet_d2.serving.limits import Limits
from nanodet_d2.serving.service import Service, named
from tests.serving.fake import RED, Fake, ask, form, picture, row, service

JSON = "application/json"


@pytest.fixture
def serve():
    """Makes services, and closes them."""
    made: list[Service] = []

    def make(*detectors: Fake, **options) -> Service:
        made.append(service(*detectors, **options))
        return made[-1]

    yield make
    for one in made:
        for pool in one.pools.values():
            for detector in pool.detectors:
                detector.gate.set()
        assert one.close()


def one(served: Service, *arguments, **options):
    """The answer to one request."""
    return asyncio.run(ask(make_app(served), *arguments, **options))


async def entered(detector: Fake) -> None:
    assert await asyncio.to_thread(detector.entered.wait, 30)


def counted(served: Service) -> dict[str, float]:
    """Values of the metrics."""
    lines = served.metrics.text().decode().splitlines()
    return {k: float(v) for k, _, v in (x.rpartition(" ") for x in lines if x[0] != "#")}


def test_a_picture_has_its_row(serve):
    served = serve()
    for target in ("/detect", "/detect/m"):
        answer = one(served, target, picture(51))
        assert answer.status == 200 and answer.json == row(51)
        assert answer.headers["content-type"] == "application/json"
    assert one(served, "/detect?threshold=0.15", picture(51)).json == row(51, threshold=0.15)
    assert one(served, "/detect?threshold=1", picture(51)).json["detections"] == []


def test_a_list_has_a_row_for_each(serve):
    body, kind = form(("a.png", picture(1)), ("b.png", b"<html>"), ("ü.png", picture(2)))
    answer = one(serve(), "/detect", body, kind=kind)
    assert answer.status == 200
    first, broken, last = answer.json["images"]
    assert (first, last) == (row(1, "a.png"), row(2, "ü.png"))
    assert broken.pop("error").startswith("not an image of the formats")
    assert broken == {"file_name": "b.png", "width": None, "height": None, "detections": []}
    body = json.dumps({"images": [base64.b64encode(picture(3)).decode()]}).encode()
    answer = one(serve(), "/detect", body, kind=JSON)
    assert answer.json == {"images": [row(3)], "error": None}


@pytest.mark.parametrize(
    "target, body, options, status, told",
    [
        ("/detect", b"<html>", {}, 422, "not an image of the formats"),
        ("/detect", b"", {}, 422, "the file is empty"),
        ("/detect", picture()[:40], {}, 422, ""),
        ("/detect", picture(size=(200, 100)), {}, 422, "200 x 100 pixels declared, max_pixels"),
        ("/detect", picture(RED), {}, 500, "the detector failed; the log says why"),
        ("/detect", b"{", {"kind": JSON}, 400, "body is no json"),
        ("/detect", b"x" * 5001, {}, 413, "more than 5000 bytes"),
        ("/detect", picture(), {"headers": {"content-encoding": "br"}}, 415, "allowed: none"),
        ("/detect", picture(), {"headers": {"content-length": "6000"}}, 413, "more than 5000"),
        ("/detect/n", picture(), {}, 404, "no model has that name; there are: m"),
        ("/detect/%2e%2e", picture(), {}, 404, "no model has that name"),
        ("/detect?threshold=x", picture(), {}, 400, "threshold 'x'; allowed: 0 to 1"),
        ("/detect?threshold=nan", picture(), {}, 400, "threshold 'nan'"),
        ("/detect?threshold=1.5", picture(), {}, 400, "threshold '1.5'"),
        ("/detect?treshold=1", picture(), {}, 400, "no parameter 'treshold'; allowed: threshold"),
        ("/detect", b"", {"method": "GET"}, 405, "Method Not Allowed"),
        ("/nothing", b"", {}, 404, "Not Found"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_told(serve, target, body, options, status, told):
    served = serve(max_bytes=5000)
    answer = one(served, target, body, **options)
    assert answer.status == status and told in answer.json["error"]
    assert one(served, "/detect", picture()).json == row(), "and the next one is served"
    assert served.busy == 0


def test_nothing_of_a_client_is_opened(serve, monkeypatch):
    served = serve()
    names = ["/etc/passwd", "/etc/passwd0", "file:///etc/passwd", "http://localhost:9/a.png"]

    assert one(served, "/detect", b"no").status == 422  # what is imported is imported

    def fail(*arguments, **_):
        raise AssertionError(f"opened: {arguments}")

    async def all_of_them():
        app = make_app(served)
        for name in names:
            asked = [
                await ask(app, "/detect", name.encode(), kind="text/plain"),
                await ask(app, "/detect", json.dumps({"images": [name]}).encode(), kind=JSON),
                await ask(app, "/detect", *form((name, b""))[:1], kind=form()[1]),
            ]
            assert [x.status for x in asked[:1]] == [422]
            assert asked[1].status == 400 or asked[1].json["images"][0]["error"]
            assert asked[2].json["images"][0]["error"] == "the file is empty"
            assert asked[2].json["images"][0]["file_name"] == name

    for place, name in ((builtins, "open"), (io, "open"), (asyncio, "open_connection")):
        monkeypatch.setattr(place, name, fail)
    asyncio.run(all_of_them())


def test_beyond_the_queue_is_429_before_the_body_is_read(serve):
    detector = Fake()
    served = serve(detector, queue=2)

    async def fill():
        app = make_app(served)
        detector.gate.clear()
        waiting = [asyncio.ensure_future(ask(app, "/detect", picture(i))) for i in range(2)]
        await entered(detector)
        assert (await ask(app, "/ready", method="GET")).status == 503
        assert (await ask(app, "/health", method="GET")).json == {"ok": True}
        full = await ask(app, "/detect", [], complete=False)  # of whose body nothing comes
        assert full.status == 429 and full.headers["retry-after"] == "1"
        assert full.json["error"].startswith("2 requests are in progress")
        assert counted(served)["nanodet_requests_in_progress"] == 2
        detector.gate.set()
        assert [x.json for x in await asyncio.gather(*waiting)] == [row(0), row(1)]
        assert (await ask(app, "/ready", method="GET")).json == {"ok": True}
        assert (await ask(app, "/detect", picture())).status == 200

    asyncio.run(fill())


def test_time_is_up(serve):
    detector = Fake()
    served = serve(detector, timeout=0.4)

    async def wait():
        app = make_app(served)
        slow = await ask(app, "/detect", [b"a", b"b"], complete=False)
        assert slow.status == 408 and slow.headers["connection"] == "close"
        assert slow.json["error"] == "the body was not there after 0.4 s"
        detector.gate.clear()
        late = await asyncio.gather(*(ask(app, "/detect", picture()) for _ in range(3)))
        assert [x.status for x in late] == [504] * 3 and served.busy == 0
        assert late[0].json["error"] == "no answer within 0.4 s"
        assert late[0].headers["retry-after"] == "1"
        detector.gate.set()
        assert (await ask(app, "/detect", picture(9))).json == row(9)

    asyncio.run(wait())
    assert detector.calls == [1, 1], "the two that only waited are not computed"


def test_a_client_that_goes_away_leaves_its_place(serve):
    detector = Fake()
    served = serve(detector, queue=2)

    async def leave():
        app, gone = make_app(served), asyncio.Event()
        detector.gate.clear()
        first = asyncio.ensure_future(ask(app, "/detect", picture(1)))
        await entered(detector)
        second = asyncio.ensure_future(ask(app, "/detect", picture(2), gone=gone))
        while served.busy < 2:
            await asyncio.sleep(0)
        gone.set()
        assert (await second).status == 499 and served.busy == 1
        assert (await ask(app, "/detect", [], gone=gone)).status == 499  # while it is read
        detector.gate.set()
        assert (await first).json == row(1)

    asyncio.run(leave())
    assert detector.calls == [1]


def test_many_at_once_have_each_its_own_answer(serve):
    """And one that fails or is no picture changes none of the others."""
    served = serve(Fake(), Fake(), max_batch=4, queue=200)
    red, no_picture = range(0, 200, 20), range(10, 200, 20)

    def body(i: int) -> bytes:
        return picture(RED) if i in red else b"no" if i in no_picture else picture(i)

    async def all_of_them():
        app = make_app(served)
        return await asyncio.gather(*(ask(app, "/detect", body(i)) for i in range(200)))

    for i, answer in enumerate(asyncio.run(all_of_them())):
        if i in red or i in no_picture:
            assert answer.status == (500 if i in red else 422)
        else:
            assert answer.json == row(i)
    found = counted(served)
    assert found['nanodet_requests_total{model="m",status="200"}'] == 180
    assert found['nanodet_requests_total{model="m",status="422"}'] == 10
    assert found['nanodet_pictures_total{model="m",outcome="failed"}'] == 10
    assert found['nanodet_request_seconds_count{model="m"}'] == 200
    assert served.busy == 0


def test_metrics_are_there_and_unknown_models_have_no_entry_of_their_own(serve):
    served = serve(queue=7)
    for i in range(3):
        one(served, f"/detect/made-up-{i}", picture())
    one(served, "/detect", picture())
    answer = one(served, "/metrics", method="GET")
    assert answer.status == 200 and answer.headers["content-type"].startswith("text/plain")
    text = answer.body.decode()
    assert 'nanodet_requests_total{model="",status="404"} 3.0' in text and "made-up" not in text
    assert 'nanodet_batch_pictures_count{model="m"} 1.0' in text
    assert re.search(r"^process_resident_memory_bytes \d", text, re.MULTILINE)
    told = one(served, "/models", method="GET").json
    assert told["limits"]["queue"] == 7
    assert told["models"] == [
        {"name": "m", "classes": ["dog", "lamp"], "input_size": [32, 48], "backend": "fake",
         "score_threshold": 0.05, "max_pixels": 10000}
    ]  # fmt: skip


def test_a_detector_that_is_gone_is_unhealthy(serve):
    served = serve()
    for _ in range(20):
        assert one(served, "/health", method="GET").status == 200
        assert one(served, "/detect", picture(RED)).status == 500
    assert one(served, "/health", method="GET").json == {"ok": False}
    assert one(served, "/ready", method="GET").status == 503


def test_a_mistake_in_here_is_json_too(serve, monkeypatch):
    served = serve()
    monkeypatch.setattr(served, "pool", lambda name: 1 / 0)
    with pytest.raises(ZeroDivisionError):  # for the server's log, after the answer
        one(served, "/detect", picture())
    assert counted(served)['nanodet_requests_total{model="m",status="500"}'] == 1


def test_the_application_closes_its_service(serve):
    served = serve()

    async def live():
        app = make_app(served)
        async with app.router.lifespan_context(app):
            assert (await ask(app, "/detect", picture())).status == 200
        assert (await ask(app, "/health", method="GET")).status == 503

    asyncio.run(live())


def test_names_of_models():
    given = ["out/model.onnx", "b=x.xml", "nanodet-plus-m-416", "c=d=e.onnx", "./f=g.ncnn.param"]
    with pytest.raises(ValueError, match=r"\./f=g.ncnn.param has no name for an address"):
        named(given)
    assert named([*given[:-1], "h=./f=g.ncnn.param", "v1.2.tensorrt.onnx"]) == {
        "model": "out/model.onnx",
        "b": "x.xml",
        "nanodet-plus-m-416": "nanodet-plus-m-416",
        "c": "d=e.onnx",
        "h": "./f=g.ncnn.param",
        "v1.2": "v1.2.tensorrt.onnx",
    }
    with pytest.raises(ValueError, match="two models are named a"):
        named(["x/a.onnx", "y/a.xml"])


@pytest.mark.parametrize(
    "options, told",
    [
        ({"workers": 0}, "workers 0; allowed: 1 or more"),
        ({"workers": 1, "threads": 0}, "threads 0; allowed: 1 or more"),
        ({"workers": 1, "max_batch": 9}, "max_batch 9; allowed: 1 to 8"),
    ],
)
def test_numbers_that_cannot_be(options, told):
    with pytest.raises(ValueError, match=told):
        Service({"m": Fake}, limits=Limits(), **options)
