"""What a training leaves behind, and what to do with it: its last lines."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nanodet_d2.checkpoint import FINAL

logger = logging.getLogger(__name__)

BEST = "model_best"


def log_outcome(output_dir: str, results: Mapping[str, Any]) -> None:
    """Name the best checkpoint and the last one, their AP, and the next commands.

    Args:
        output_dir: of the training.
        results: of its last evaluation; empty if there was none.
    """
    folder = Path(output_dir)
    last, best = folder / f"{FINAL}.pth", folder / f"{BEST}.pth"
    last_ap = (results.get("bbox") or {}).get("AP")
    described = folder / f"{BEST}.json"
    chosen = last
    if best.is_file() and described.is_file():
        found = json.loads(described.read_text())
        logger.info("best: %s, AP %.1f", best, found["value"])
        chosen = best
    if last.is_file():
        known = f", AP {last_ap:.1f}" if last_ap is not None else ", not evaluated"
        logger.info("last: %s%s", last, known)
    if chosen.is_file():
        logger.info("next: nanodet-d2 predict %s PICTURE", chosen)
        logger.info("      nanodet-d2 export %s --format onnx", chosen)
