"""Threads with bounded queues: nothing is lost of a file, and only the newest kept of a camera."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from nanodet_d2.runtime.sources import Frame
from nanodet_d2.tracking.channel import Channel
from nanodet_d2.tracking.pipeline import Flow, run_pipeline

IMAGE = np.zeros((2, 2, 3), np.uint8)


def frames(count: int, *, wait: float = 0.0, error: Exception | None = None):
    for i in range(count):
        time.sleep(wait)
        yield Frame(IMAGE, "clip", i, i)
    if error is not None:
        raise error


def run(source, *, detect=lambda frame: frame.number, live=False, finish=None, stop=None):
    """What was finished, the flow, and the error if any."""
    done: list[tuple[int | None, object]] = []
    flow, error = Flow(), None
    try:
        run_pipeline(
            source,
            detect,
            finish or (lambda frame, result: done.append((frame.number, result))),
            live=live,
            stop=stop or threading.Event(),
            flow=flow,
        )
    except Exception as raised:
        error = raised
    return done, flow, error


def test_all_frames_in_order():
    done, flow, error = run(frames(50))
    assert done == [(i, i) for i in range(50)] and error is None
    assert (flow.frames, flow.dropped) == (50, 0)
    assert run(frames(0))[0] == []


def test_the_three_work_at_the_same_time():
    """Each waits for the other two, in the midst of different frames."""
    meeting = threading.Barrier(3, timeout=20)

    def source():
        for frame in frames(6):
            if frame.number == 2:
                meeting.wait()
            yield frame

    def detect(frame):
        if frame.number == 1:
            meeting.wait()

    def finish(frame, _):
        if frame.number == 0:
            meeting.wait()

    _, flow, error = run(source(), detect=detect, finish=finish)
    assert error is None and flow.frames == 6


def test_no_more_than_a_few_frames_wait():
    """Whoever is slow: else memory would grow."""
    given, taken, most = [0], [0], [0]

    def source():
        for frame in frames(60):
            given[0] += 1
            most[0] = max(most[0], given[0] - taken[0])
            yield frame

    def finish(*_):
        time.sleep(0.002)
        taken[0] += 1

    run(source(), finish=finish)
    assert taken[0] == 60 and most[0] <= 12


def test_a_camera_that_is_too_fast_loses_old_frames():
    """While the detector works on the first frame nine come; it goes on with the last of them."""
    started, all_there = threading.Event(), threading.Event()

    def source():
        for frame in frames(10):
            yield frame
            if frame.number == 0:
                started.wait(20)
        all_there.set()

    def detect(frame):
        started.set()
        all_there.wait(20)
        return frame.number

    done, flow, error = run(source(), detect=detect, live=True)
    assert error is None and done == [(0, 0), (9, 9)]
    assert (flow.frames, flow.dropped) == (2, 8) and len(flow.latencies) == 2


@pytest.mark.parametrize("live", [False, True])
def test_what_fails_is_told_after_what_was_done(live):
    wrong = ValueError("breaks off")
    done, flow, error = run(frames(5, wait=0.01, error=wrong), live=live)
    assert error is wrong and done[-1] == (4, 4) and flow.frames == len(done)
    assert live or len(done) == 5

    def finish(*_):
        raise OSError("disk full")

    _, flow, error = run(frames(10_000), finish=finish)
    assert str(error) == "disk full" and flow.frames < 100

    def detect(_):
        raise RuntimeError("no")

    done, flow, error = run(frames(10_000), detect=detect)
    assert str(error) == "no" and done == []


def test_stopped_after_the_frame_that_is_worked_on():
    stop = threading.Event()

    def detect(frame):
        if frame.number == 7:
            stop.set()
        return frame.number

    done, flow, _ = run(frames(10_000), detect=detect, stop=stop)
    assert done[-1] == (7, 7) and flow.frames == 8


def test_no_thread_is_left():
    before = threading.active_count()
    for error in (None, ValueError("x")):
        run(frames(20, error=error))
    run(frames(1000), finish=lambda *_: 1 / 0)
    assert threading.active_count() == before


def test_a_full_channel_drops_or_waits():
    channel: Channel[int] = Channel(2, drops=True)
    assert all(channel.put(i) for i in range(5))
    channel.close()
    assert list(channel) == [3, 4] and channel.dropped == 3
    waiting: Channel[int] = Channel(1)
    threading.Timer(0.05, waiting.cancel).start()
    assert waiting.put(0) and not waiting.put(1)
    assert list(waiting) == []


def test_facts():
    flow = Flow(frames=10, dropped=2, seconds=2.0)
    flow.latencies.extend([0.01, 0.02, 0.09])
    assert flow.facts() == {
        "frames": 10, "dropped": 2, "seconds": 2.0, "frames_per_second": 5.0,
        "latency_ms": 20.0, "latency_ms_max": 90.0,
    }  # fmt: skip
    assert Flow().facts()["frames_per_second"] == 0.0
