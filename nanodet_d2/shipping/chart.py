"""AP against the time from an image to its boxes, with the Pareto front and the budget."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import matplotlib.figure

from .candidates import PRECISIONS
from .choosing import Budget, Measured, front

MARKERS = dict(zip(PRECISIONS, "os^"))


@matplotlib.rc_context({"text.parse_math": False})  # a file may be called "$a_b$.onnx"
def draw(
    path: Path,
    measured: Sequence[Measured],
    budget: Budget,
    *,
    shipped: str | None,
    threads: int,
    pictures: int,
) -> None:
    """Write a picture.

    Args:
        measured: names of candidates begin with format and precision, and end with the size.
        shipped: name of the one that is shipped, if any.
        threads: that times were taken with.
        pictures: that AP was measured on.
    """
    figure = matplotlib.figure.Figure(figsize=(10, 6), layout="constrained")
    axes = figure.add_subplot()
    ours = [x for x in measured if not x.peer]
    formats = sorted({x.name.split()[0] for x in ours})
    colors = {name: f"C{i}" for i, name in enumerate(formats)}
    for x in ours:
        format, precision, _ = x.name.split()
        label = f"{format} {precision}"
        axes.scatter(x.ms, x.ap, color=colors[format], marker=MARKERS[precision], s=45,
                     alpha=0.75, label=label)  # fmt: skip
        if x.name == shipped:
            axes.scatter(x.ms, x.ap, s=220, facecolors="none", edgecolors="black",
                         label="shipped")  # fmt: skip
    best = front(ours)
    axes.step([x.ms for x in best], [x.ap for x in best], where="post", color="black", lw=1,
              alpha=0.6, label="Pareto front")  # fmt: skip
    first = {x.name.split()[2]: x for x in reversed(best)}  # the fastest of each size
    for size, x in first.items():
        axes.annotate(size, (x.ms, x.ap), xytext=(4, -11), fontsize=7,
                      textcoords="offset points")  # fmt: skip
    for x in measured:
        if x.peer:
            axes.scatter(x.ms, x.ap, color="gray", marker="*", s=90)
            axes.annotate(x.name, (x.ms, x.ap), xytext=(5, 4), textcoords="offset points",
                          fontsize=8, color="dimgray")  # fmt: skip
    if budget.max_ms is not None:
        axes.axvline(budget.max_ms, color="tab:red", ls=":", label=f"at most {budget.max_ms:g} ms")
    axes.axhline(budget.reference_ap - budget.max_ap_drop, color="tab:green", ls=":",
                 label=f"at most {budget.max_ap_drop:g} AP lost")  # fmt: skip
    handles, labels = axes.get_legend_handles_labels()
    once = dict(zip(labels, handles))
    figure.legend(once.values(), once.keys(), loc="outside right upper", fontsize=8)
    axes.set(
        xlabel=f"image to boxes, ms; threads: {threads}",
        ylabel=f"AP on {pictures} pictures",
        xlim=(0, None),
    )
    axes.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
