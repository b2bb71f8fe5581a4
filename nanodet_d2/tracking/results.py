"""Tracks on disk: a line of json for each frame as it comes, and one COCO file of videos."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from nanodet_d2.runtime.results import Results
from nanodet_d2.runtime.sources import Frame

from .tracked import Tracked


class TrackResults(Results):
    """``tracks.jsonl``, and ``tracks.json`` made of it, in the form that MMTracking calls CocoVID.

    That is a COCO data set with ``videos``; images have ``video_id`` and ``frame_id``, which counts
    from 0, and annotations ``instance_id``. A track is a number within its video, which instance
    ids continue from one video to the next.
    """

    def __init__(self, class_names: Sequence[str], folder: Path):
        super().__init__(class_names, folder, stem="tracks")
        self._videos: list[str] = []
        self._most: list[int] = []  # the greatest number of a track of each video

    def begin(self, name: str) -> None:
        """The frames that are added from now on are of this video."""
        self._videos.append(name)
        self._most.append(0)

    def add_tracks(self, frame: Frame, number: int, tracked: Tracked) -> None:
        """Append the tracks of a frame of the video.

        Raises:
            OSError: if there is no room for all of the line; nothing of it is left then.
        """
        line = self.describe(frame, tracked.found)
        for found, track in zip(line["detections"], tracked.ids.tolist()):
            found["track_id"] = track
            self._most[-1] = max(self._most[-1], track)
        self.add_picture({"video": len(self._videos), **line, "frame": number})

    def sections(self) -> dict[str, Iterable[dict[str, Any]]]:
        videos = [{"id": i, "name": name} for i, name in enumerate(self._videos, 1)]
        return {"videos": videos, **super().sections()}

    def _images(self) -> Iterator[dict[str, Any]]:
        for image in super()._images():
            video, frame = image.pop("video"), image.pop("frame")
            yield {**image, "video_id": video, "frame_id": frame}

    def _annotations(self) -> Iterator[dict[str, Any]]:
        ids = itertools.count(1)
        before = [0, *itertools.accumulate(self._most)]
        for number, picture in self.read():
            for found in picture["detections"]:
                del found["category"]
                instance = before[picture["video"] - 1] + found.pop("track_id")
                yield {
                    "id": next(ids), "image_id": number, "video_id": picture["video"],
                    "instance_id": instance, **found, "iscrowd": 0,
                }  # fmt: skip
