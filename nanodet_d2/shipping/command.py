"""Measuring all candidates, choosing one, and writing it with its kit."""

from __future__ import annotations

import dataclasses
import logging
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nanodet_d2.conformance import write_kit
from nanodet_d2.conformance.kit import kit_folder

from .chart import draw
from .choosing import Budget, Measured, affordable, doubts, front, shortfall
from .making import Load, files_of
from .measuring import Measuring
from .wish import Wish

logger = logging.getLogger(__name__)

CHART = "ship.png"


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What is shipped, as it was measured afresh; or None, and why.

    Attributes:
        words: what speaks against it, or why there is nothing; one line each.
        ap_noise: that its loss of AP may be off by.
    """

    shipped: Measured | None
    words: list[str]
    ap_noise: float = 0.0


def ship(load: Load, wish: Wish) -> tuple[str, dict[str, Any], bool]:
    """Measure, choose, and write the smallest file that meets the budget, with its kit.

    Written to the output folder are ``ship.json`` (all that was measured: a repeated call goes on
    from it), ``ship.png``, ``candidates/`` with all files, and what is shipped.

    Args:
        load: gives the model at an input size, at its own for None.

    Returns:
        a text, the same as facts, and whether a file is shipped.

    Raises:
        ValueError, FileNotFoundError: for what cannot be done.
    """
    measuring = Measuring(load, wish)
    budget = Budget(wish.max_ms, wish.max_ap_drop, measuring.reference_ap())
    measured = measuring.run()
    ours = [x for x in measured if not x.peer]
    verdict = choose(
        ours,
        budget,
        afresh=measuring.afresh,
        ap_noise=measuring.ap_noise,
        pictures=measuring.picture_count,
    )
    x = verdict.shipped
    draw(wish.output / CHART, measured, budget, shipped=x.name if x else None,
         threads=wish.threads, pictures=measuring.picture_count)  # fmt: skip
    written = _write(measuring.file(x.name), wish) if x else {}
    noise = verdict.ap_noise
    facts = {
        "shipped": dataclasses.asdict(x) | written if x else None,
        "words": verdict.words,
        "reference_ap": budget.reference_ap,
        "ap_noise": noise if math.isfinite(noise) else None,  # json has no infinity
        "front": [dataclasses.asdict(one) for one in front(ours)],
        "measured": [dataclasses.asdict(one) for one in measured],
        "left_out": measuring.left_out,
        "chart": str(wish.output / CHART),
    }
    return _text(measured, budget, verdict, measuring, written), facts, x is not None


def choose(
    measured: Sequence[Measured],
    budget: Budget,
    *,
    afresh: Callable[[str], Measured],
    ap_noise: Callable[[str], float],
    pictures: int,
) -> Verdict:
    """The first that meets the budget, and does so once more when it is measured afresh.

    Args:
        afresh: measures one once more.
        ap_noise: tells by how much its loss of AP may be off.
        pictures: that AP was measured on.
    """
    ready = affordable(measured, budget)
    if not ready:
        return Verdict(None, [f"no candidate meets the budget: {shortfall(measured, budget)}"])
    words: list[str] = []
    for x in ready:
        logger.info("%s: measured afresh", x.name)
        again = afresh(x.name)
        if budget.is_fast(again):
            noise = ap_noise(x.name)
            return Verdict(again, words + doubts(again, budget, noise, pictures), noise)
        assert budget.max_ms is not None
        words.append(
            f"{x.name} took {x.ms:.2f} ms, and {again.ms:.2f} when it was measured afresh, "
            f"{again.ms - budget.max_ms:.2f} too many"
        )
    return Verdict(None, words)


def _write(source: Path, wish: Wish) -> dict[str, str]:
    """Copy a candidate's files to the output folder, with a kit beside them."""
    for path in files_of(source):
        target = wish.output / path.name
        if path.is_dir():
            shutil.copytree(path, target, dirs_exist_ok=True)
        else:
            shutil.copy2(path, target)
    file = wish.output / source.name
    kit = write_kit(file, kit_folder(file), images=[wish.images])
    return {"file": str(file), "kit": str(kit)}


def _text(
    measured: Sequence[Measured],
    budget: Budget,
    verdict: Verdict,
    measuring: Measuring,
    written: dict[str, str],
) -> str:
    """What is said in the terminal: the front, the peers, and the verdict."""
    ours = [x for x in measured if not x.peer]
    lines = [
        f"PyTorch, float32: AP {budget.reference_ap:.2f} on {measuring.picture_count} pictures. Of "
        f"{len(ours)} files no other is both faster and better than these:",
        *table(front(ours), budget),
    ]
    peers = sorted((x for x in measured if x.peer), key=lambda x: x.ms)
    if peers:
        lines += ["for comparison:", *table(peers, budget)]
    if measuring.left_out:
        lines.append(f"left out: {', '.join(measuring.left_out)} (why: --json)")
    lines += [f"note: {words}" if verdict.shipped else words for words in verdict.words]
    x = verdict.shipped
    if x is not None:
        lines.append(
            f"shipped: {written['file']}, {x.bytes / 1e6:.2f} MB: measured afresh {x.ms:.2f} ± "
            f"{x.noise_ms:.2f} ms, AP {x.ap:.2f}, lost {budget.drop(x):.2f} ± "
            f"{verdict.ap_noise:.2f}; kit: {written['kit']}"
        )
    lines.append(f"chart: {measuring.wish.output / CHART}")
    return "\n".join(lines)


def table(measured: Sequence[Measured], budget: Budget) -> list[str]:
    """Lines of a table."""
    rows = [("file", "ms", "±", "AP", "lost", "MB")]
    rows += [
        (x.name, f"{x.ms:.2f}", f"{x.noise_ms:.2f}", f"{x.ap:.2f}", f"{budget.drop(x):.2f}",
         f"{x.bytes / 1e6:.2f}")
        for x in measured
    ]  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*rows)]
    return [
        "  " + "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])
        for row in rows
    ]
