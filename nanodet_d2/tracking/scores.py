"""HOTA, IDF1, MOTA and what they are made of, by TrackEval (MIT).

Each class is scored by itself, and the classes are put together by their numbers of boxes, as
TrackEval's ``cls_comb_det_av``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .adapter import require_extra
from .matching import by_frame, iou_matrix
from .mot import MotTable

# What is told of each of TrackEval's metrics; shares as per cent.
SHARES = {
    "HOTA": ("HOTA", "DetA", "AssA", "DetRe", "DetPr", "AssRe", "AssPr", "LocA"),
    "CLEAR": ("MOTA", "MOTP"),
    "Identity": ("IDF1", "IDR", "IDP"),
}
COUNTS = {"CLEAR": ("CLR_TP", "CLR_FN", "CLR_FP", "IDSW", "Frag", "MT", "ML")}

Pairs = Mapping[str, tuple[MotTable, MotTable]]  # name of a video -> ground truth, tracks


def score_tracks(videos: Pairs) -> dict[str, float]:
    """The scores of all videos together.

    Where either side tells no classes, those of the other do not matter.

    Raises:
        ImportError: where TrackEval is not installed.
        ValueError: without any ground truth.
    """
    require_extra(["trackeval"], "scoring tracks")
    from trackeval.metrics import CLEAR, HOTA, Identity

    if not any(len(truth) for truth, _ in videos.values()):
        raise ValueError("the ground truth has no object")
    data = {
        (name, label): as_trackeval(truth_part, tracks_part)
        for name, (truth, tracks) in videos.items()
        for label, (truth_part, tracks_part) in _by_class(truth, tracks).items()
    }
    quiet = {"PRINT_CONFIG": False}
    metrics = {"HOTA": HOTA(), "CLEAR": CLEAR(quiet), "Identity": Identity(quiet)}
    found: dict[str, float] = {}
    for kind, metric in metrics.items():
        single = {key: metric.eval_sequence(x) for key, x in data.items()}
        together = metric.combine_classes_det_averaged(single)
        for name in SHARES[kind]:
            found[name] = round(100 * float(np.mean(together[name])), 3)
        for name in COUNTS.get(kind, ()):
            found[name] = int(together[name])
    return found


def _by_class(truth: MotTable, tracks: MotTable) -> dict[int, tuple[MotTable, MotTable]]:
    if not (truth.classes > 0).any() or not (tracks.classes > 0).any():
        return {-1: (truth, tracks)}
    labels = np.union1d(truth.classes, tracks.classes).tolist()
    return {x: (truth[truth.classes == x], tracks[tracks.classes == x]) for x in labels}


def as_trackeval(truth: MotTable, tracks: MotTable) -> dict[str, Any]:
    """What TrackEval's metrics take of one video: ids from 0 on, and IoUs, of each frame."""
    last = max([0, *truth.frames.tolist(), *tracks.frames.tolist()])
    object_of, track_of = _numbers(truth), _numbers(tracks)
    objects, mine = by_frame(truth), by_frame(tracks)
    none = truth[np.zeros(0, np.int64)]
    gt_ids, tracker_ids, scores = [], [], []
    for number in range(1, last + 1):
        a, b = objects.get(number, none), mine.get(number, none)
        gt_ids.append(np.array([object_of[x] for x in a.ids.tolist()], np.int64))
        tracker_ids.append(np.array([track_of[x] for x in b.ids.tolist()], np.int64))
        scores.append(iou_matrix(a.boxes, b.boxes))
    return {
        "num_timesteps": last,
        "num_gt_ids": len(object_of),
        "num_tracker_ids": len(track_of),
        "num_gt_dets": len(truth),
        "num_tracker_dets": len(tracks),
        "gt_ids": gt_ids,
        "tracker_ids": tracker_ids,
        "similarity_scores": scores,
    }


def _numbers(table: MotTable) -> dict[int, int]:
    """The ids, numbered from 0 on."""
    return {x: i for i, x in enumerate(np.unique(table.ids).tolist())}
