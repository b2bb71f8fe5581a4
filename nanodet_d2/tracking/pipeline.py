"""Reading, detecting, and what comes after it, at the same time: a thread for each.

Queues between them are bounded, so memory does not grow. A file's reader waits for the detector; a
camera does not wait, so of its frames only the newest is kept: the detector never works on one that
is older than the time between two of them.
"""

from __future__ import annotations

import collections
import dataclasses
import statistics
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from nanodet_d2.runtime.sources import Frame

from .channel import Channel

_AHEAD = 3  # frames of a file that are read before they are needed, and results that wait
_RECENT = 1000  # frames that the latency is of
_PATIENCE = 5.0  # seconds that a reader may take to give up; a camera may hang

Timed = tuple[Frame, float]  # with the time at which it was there


@dataclasses.dataclass
class Flow:
    """How a source went through the pipeline.

    Attributes:
        frames: that were detected in.
        dropped: of a camera, those that came while the detector was busy.
        seconds: from the first frame to the end.
        latencies: of the last frames: seconds from when a frame was there to its boxes.
    """

    frames: int = 0
    dropped: int = 0
    seconds: float = 0.0
    latencies: collections.deque[float] = dataclasses.field(
        default_factory=lambda: collections.deque(maxlen=_RECENT)
    )

    def facts(self) -> dict[str, Any]:
        """For a machine."""
        median = statistics.median(self.latencies) if self.latencies else 0.0
        return {
            "frames": self.frames,
            "dropped": self.dropped,
            "seconds": round(self.seconds, 3),
            "frames_per_second": round(self.frames / self.seconds, 2) if self.seconds else 0.0,
            "latency_ms": round(1e3 * median, 2),
            "latency_ms_max": round(1e3 * max(self.latencies, default=0.0), 2),
        }


def run_pipeline(
    frames: Iterable[Frame],
    detect: Callable[[Frame], Any],
    finish: Callable[[Frame, Any], None],
    *,
    live: bool,
    stop: threading.Event,
    flow: Flow,
) -> None:
    """Detect in all frames, in this thread; ``frames`` is read and ``finish`` called in others.

    Args:
        finish: what is done with a frame and what ``detect`` gave for it, in order.
        live: frames that come while the detector is busy are dropped, but for the newest.
        stop: when it is set, the frame that is being worked on is the last one.
        flow: is filled in, also where it ends with an error.

    Raises:
        what ``frames``, ``detect`` and ``finish`` raise, after all threads have ended. What was
        detected before is finished, unless ``finish`` itself has failed.
    """
    incoming: Channel[Timed] = Channel(1 if live else _AHEAD, drops=live)
    outgoing: Channel[tuple[Frame, Any]] = Channel(_AHEAD)
    failed: list[BaseException] = []
    reader = threading.Thread(target=_read, args=(frames, incoming), daemon=True)
    finisher = threading.Thread(target=_finish, args=(outgoing, finish, failed), daemon=True)
    begin = time.perf_counter()
    reader.start()
    finisher.start()
    try:
        for frame, there in incoming:
            found = detect(frame)
            flow.latencies.append(time.perf_counter() - there)
            flow.frames += 1
            if not outgoing.put((frame, found)) or stop.is_set():
                break
    finally:
        incoming.cancel()
        outgoing.close()
        finisher.join()
        reader.join(_PATIENCE)
        flow.dropped, flow.seconds = incoming.dropped, time.perf_counter() - begin
    if failed:
        raise failed[0]


def _read(frames: Iterable[Frame], incoming: Channel[Timed]) -> None:
    try:
        for frame in frames:
            if not incoming.put((frame, time.perf_counter())):
                break
    except BaseException as error:  # it is raised again where the frames are awaited
        incoming.close(error)
    else:
        incoming.close()


def _finish(
    outgoing: Channel[tuple[Frame, Any]],
    finish: Callable[[Frame, Any], None],
    failed: list[BaseException],
) -> None:
    try:
        for frame, found in outgoing:
            finish(frame, found)
    except BaseException as error:
        failed.append(error)
        outgoing.cancel()
