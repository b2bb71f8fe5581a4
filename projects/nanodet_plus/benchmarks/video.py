#!/usr/bin/env python
"""A video from end to end against its detector alone, a camera's latency, and memory over a loop.

``video.py MODEL``, an exported file. Frames are drawn, of 480 px; tracks are drawn and written.
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import common
import cv2
import numpy as np
import psutil

from nanodet_d2.data.clips import draw_clip
from nanodet_d2.runtime import Detector
from nanodet_d2.runtime.sources import Frame, Video
from nanodet_d2.tracking import Settings
from nanodet_d2.tracking.follow import Wishes
from nanodet_d2.tracking.pipeline import Flow, run_pipeline
from nanodet_d2.tracking.run import track_in

SIZE, FRAMES = 480, 150
LEAST_SHARE = 0.85  # of the detector's own frames a second
MOST_LATENCY = 2.0  # detector times
MOST_GROWTH = 0.02  # of memory after the warm-up
WINDOWS = 20  # that the memory's readings are put together to; the first three are the warm-up


class LoopedVideo(Video):
    """A clip over and over, for so many seconds."""

    def __init__(self, source: str, output: Path, seconds: float):
        super().__init__(source, output)
        self.total, self.seconds = None, seconds

    def __iter__(self) -> Iterator[Frame]:
        end = time.monotonic() + self.seconds
        for number in itertools.count():
            read, image = self.capture.read()
            if not read:
                self.capture.set(cv2.CAP_PROP_POS_FRAMES, 0)
                read, image = self.capture.read()
            if not read or time.monotonic() > end:
                return
            yield Frame(image, "loop", number, number)


def main() -> None:
    parser = common.parser(__doc__, output="video.json")
    parser.add_argument("model", type=Path, help="an exported file")
    parser.add_argument("--tracker", default="bytetrack")
    parser.add_argument("--rounds", type=int, default=5, help="of both sides, in turns")
    parser.add_argument("--minutes", type=float, default=60.0, help="of the loop; 0 for none")
    args = parser.parse_args()
    common.start(args)
    settings = Settings(tracker=args.tracker)
    detector = Detector(args.model, num_threads=args.threads, score_thresh=settings.low)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip, images = write_clip(folder / "clip.avi")
        result = throughput(detector, settings, clip, images, folder, args.rounds)
        result |= latency(detector, images)
        if args.minutes:
            result |= memory(detector, settings, clip, folder, 60 * args.minutes)
    for key, value in result.items():
        common.show(f"{key:28} {value:.3f}" if isinstance(value, float) else f"{key:28} {value}")
    common.save(args.output, result, args.device)


def write_clip(path: Path) -> tuple[Path, list[np.ndarray]]:
    """A clip, and its frames."""
    drawn = draw_clip(0, "val", 0, frames=FRAMES, size=SIZE)
    images = [image for image, _ in drawn]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (SIZE, SIZE))
    for image in images:
        writer.write(image)
    writer.release()
    return path, images


def throughput(
    detector: Detector,
    settings: Settings,
    clip: Path,
    images: list[np.ndarray],
    folder: Path,
    rounds: int,
) -> dict[str, float]:
    """Frames a second of the detector on frames in memory, and of the whole way, in turns."""
    alone, whole = [], []
    for i in range(rounds + 1):
        begin = time.perf_counter()
        for image in images:
            detector(image)
        alone.append(len(images) / (time.perf_counter() - begin))
        output = folder / f"out{i}"
        done = track_in([Video(str(clip), output)], detector, output, Wishes(settings=settings))
        whole.append(done.videos[0]["frames"] / done.videos[0]["seconds"])
    shares = [b / a for a, b in zip(alone[1:], whole[1:])]  # the first round warms up
    return {
        "detector alone, frames/s": statistics.median(alone[1:]),
        "end to end, frames/s": statistics.median(whole[1:]),
        "share": statistics.median(shares),
        "share asked for": LEAST_SHARE,
    }


def latency(detector: Detector, images: list[np.ndarray]) -> dict[str, float]:
    """From a frame to its boxes, of a camera twice as fast as the detector."""
    times = []
    for image in images:
        begin = time.perf_counter()
        detector(image)
        times.append(time.perf_counter() - begin)
    single = statistics.median(times)

    def camera() -> Iterator[Frame]:
        begin = time.perf_counter()
        for number, image in enumerate(itertools.islice(itertools.cycle(images), 400)):
            time.sleep(max(0.0, begin + number * single / 2 - time.perf_counter()))
            yield Frame(image, "camera", number, number)

    flow = Flow()
    run_pipeline(
        camera(),
        lambda frame: detector(frame.image),
        lambda frame, found: None,
        live=True,
        stop=threading.Event(),
        flow=flow,
    )
    delays = sorted(flow.latencies)
    return {
        "detector, ms": 1e3 * single,
        "latency, detector times": statistics.median(delays) / single,
        "latency, 95 %": delays[int(0.95 * len(delays))] / single,
        "latency, longest": delays[-1] / single,
        "latency asked for": MOST_LATENCY,
        "frames dropped": flow.dropped,
    }


def memory(
    detector: Detector, settings: Settings, clip: Path, folder: Path, seconds: float
) -> dict[str, float]:
    """Of this process, read each quarter of a second while a clip runs over and over."""
    readings: list[float] = []
    ended = threading.Event()

    def read() -> None:
        process = psutil.Process()
        while not ended.wait(0.25):
            readings.append(process.memory_info().rss / 1e6)

    reader = threading.Thread(target=read)
    reader.start()
    output = folder / "loop"
    done = track_in(
        [LoopedVideo(str(clip), output, seconds)], detector, output, Wishes(settings=settings)
    )
    ended.set()
    reader.join()
    size = max(1, len(readings) // WINDOWS)
    medians = [statistics.median(readings[i : i + size]) for i in range(0, len(readings), size)]
    kept = medians[3:] or medians
    return {
        "frames of the loop": done.videos[0]["frames"],
        "megabytes after the warm-up": kept[0],
        "growth": max(kept) / kept[0] - 1,
        "growth allowed": MOST_GROWTH,
    }


if __name__ == "__main__":
    main()
