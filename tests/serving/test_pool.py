"""Threads that detect: batches, failures, pictures that nobody waits for any more, the end."""

from __future__ import annotations

from concurrent.futures import CancelledError

import pytest

from nanodet_d2.runtime.images import ImageError
from nanodet_d2.serving.pool import MAX_FAILURES, DetectorFailed, Pool
from tests.serving.fake import RED, Fake, picture, row

SECONDS = 30  # that nothing here takes


@pytest.fixture
def pools():
    """Makes pools, and closes them."""
    made: list[Pool] = []

    def make(*detectors: Fake, max_batch: int = 1, watch=lambda *_: None) -> Pool:
        made.append(Pool(detectors, max_batch=max_batch, watch=watch))
        return made[-1]

    yield make
    for pool in made:
        for detector in pool.detectors:
            detector.gate.set()
        assert pool.close(SECONDS)


def expected(grey: int, name: str) -> dict:
    return {k: v for k, v in row(grey, name).items() if k != "error"}


def test_rows_are_those_of_their_pictures(pools):
    pool = pools(Fake(), Fake(), Fake(), max_batch=4)
    answers = [pool.submit(f"{i}.png", picture(i)) for i in range(200)]
    for i, answer in enumerate(answers):
        assert answer.result(SECONDS) == expected(i, f"{i}.png")
    assert pool.healthy


def test_a_batch_is_what_is_waiting_and_no_more_than_allowed(pools):
    detector, seen = Fake(), []
    pool = pools(detector, max_batch=4, watch=lambda count, seconds: seen.append((count, seconds)))
    detector.gate.clear()
    answers = [pool.submit("0", picture())]
    assert detector.entered.wait(SECONDS)
    answers += [pool.submit(str(i), picture(i)) for i in range(1, 6)]
    detector.gate.set()
    assert [x.result(SECONDS)["file_name"] for x in answers] == list("012345")
    assert detector.calls == [1, 4, 1] and [count for count, _ in seen] == [1, 4, 1]
    assert all(0 < seconds < SECONDS for _, seconds in seen)


@pytest.mark.parametrize("max_batch", [1, 8])
def test_a_bad_picture_costs_no_other(pools, max_batch, caplog):
    detector = Fake()
    pool = pools(detector, max_batch=max_batch)
    detector.gate.clear()
    first = pool.submit("first", picture())
    assert detector.entered.wait(SECONDS)
    bodies = [picture(1), b"<html>", picture(RED), b"", picture(2), picture(3, size=(200, 100))]
    answers = [pool.submit(str(i), x) for i, x in enumerate(bodies)]
    detector.gate.set()
    first.result(SECONDS)
    errors = [x.exception(SECONDS) for x in answers]
    assert [type(x) for x in errors] == [
        *(type(None), ImageError, DetectorFailed, ImageError, type(None), ImageError)
    ]
    assert "not an image of the formats" in errors[1].reason and errors[3].reason == (
        "the file is empty"
    )
    assert "200 x 100 pixels declared, max_pixels is 10000" in errors[5].reason
    assert answers[4].result() == expected(2, "4")
    assert "no kernel for red" in caplog.text and "red" not in str(errors[2])


def test_what_nobody_waits_for_is_not_computed(pools):
    detector = Fake()
    pool = pools(detector)
    detector.gate.clear()
    first, second, third = (pool.submit(str(i), picture()) for i in range(3))
    assert detector.entered.wait(SECONDS)
    assert second.cancel() and not first.cancel()
    detector.gate.set()
    assert first.result(SECONDS) and third.result(SECONDS)
    with pytest.raises(CancelledError):
        second.result(SECONDS)
    assert detector.calls == [1, 1]


def test_failures_in_a_row_are_no_accident(pools):
    pool = pools(Fake())
    for count in range(1, MAX_FAILURES + 1):
        assert pool.healthy, count
        assert isinstance(pool.submit("x", picture(RED)).exception(SECONDS), DetectorFailed)
    assert not pool.healthy
    pool.submit("x", b"").exception(SECONDS)  # says nothing of the detector
    assert not pool.healthy
    assert pool.submit("x", picture()).result(SECONDS)
    assert pool.healthy


@pytest.mark.parametrize("max_batch", [1, 3])
def test_the_end_waits_for_what_was_submitted(pools, max_batch):
    detectors = [Fake(0.01), Fake(0.01)]
    pool = pools(*detectors, max_batch=max_batch)
    answers = [pool.submit(str(i), picture(i)) for i in range(20)]
    assert pool.close(SECONDS)
    assert all(x.done() for x in answers) and sum(map(sum, (x.calls for x in detectors))) == 20
    assert not pool.healthy
    with pytest.raises(RuntimeError, match="closed"):
        pool.submit("x", picture())


def test_an_end_that_takes_too_long_is_told(pools):
    detector = Fake()
    pool = pools(detector)
    detector.gate.clear()
    answer = pool.submit("x", picture())
    assert detector.entered.wait(SECONDS)
    assert not pool.close(0.01)
    detector.gate.set()
    assert answer.result(SECONDS) and pool.close(SECONDS)
