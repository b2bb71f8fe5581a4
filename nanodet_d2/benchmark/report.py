"""What was measured, as a table and a plot."""

from __future__ import annotations

import itertools
import os
import platform
from collections.abc import Sequence
from pathlib import Path

import matplotlib.figure

from .models import Model

COLORS = {
    "onnxruntime": "C0",
    "openvino": "C1",
    "ncnn": "C2",
    "torchscript": "C3",
    "pytorch": "C4",
    "MNN": "C5",
    "litert": "C6",
    "executorch": "C7",
    "onnxruntime before the plugin": "C8",
    "coreml": "C9",
    "torch in place of coreml": "C9",
}
MARKERS = "osD^v<>pXP*hd8"


def table(models: Sequence[Model]) -> str:
    """A Markdown table, the fastest first."""
    counts = list(models[0].facts.get("latency", {}))
    header = ["file", "backend", "kind", "MB", "AP", "detections"]
    for count in counts:
        word = "thread" if count == "1" else "threads"
        header += [f"{count} {word}: network, ms (p90)", "image to boxes, ms (p90)", "images/s"]
    rows = []
    for model in sorted(models, key=lambda x: _total_ms(x)):
        x = model.facts
        ap = f"{x['AP']:.2f}" if "AP" in x else "–"
        row = [
            x["file"],
            x["backend"],
            x["kind"],
            f"{x['bytes'] / 1e6:.2f}",
            ap,
            str(x["detections"]),
        ]
        for latency in (x["latency"][count] for count in counts):
            parts = (latency[part] for part in ("network", "total"))
            row += [f"{part['median_ms']:.1f} ({part['p90_ms']:.1f})" for part in parts]
            row.append(f"{latency['images_per_second']:.1f}")
        rows.append(row)
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _total_ms(model: Model) -> float:
    """Median latency with the last number of threads."""
    latency = model.facts.get("latency")
    return list(latency.values())[-1]["total"]["median_ms"] if latency else 0.0


@matplotlib.rc_context({"text.parse_math": False})  # a file may be called "$a_b$.onnx"
def plot(models: Sequence[Model], path: Path) -> None:
    """AP against latency, image to boxes, with the last number of threads; of those with an AP."""
    figure = matplotlib.figure.Figure(figsize=(9, 5), layout="constrained")
    axes = figure.add_subplot()
    scored = sorted((x for x in models if "AP" in x.facts), key=_total_ms)
    for model, marker in zip(scored, itertools.cycle(MARKERS)):
        color = COLORS[model.facts["backend"]]
        point = (_total_ms(model), model.facts["AP"])
        axes.scatter(*point, color=color, marker=marker, label=model.name, s=60, alpha=0.7)
    figure.legend(loc="outside right upper", fontsize=8, title="the fastest first")
    threads = list(models[0].facts["latency"])[-1]
    axes.set(xlabel=f"image to boxes, ms; threads: {threads}", ylabel="AP", xlim=(0, None))
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def machine() -> str:
    """Processor, cores and Python, in one line."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    processor = names[0] if names else platform.machine()
    return f"{processor}, {os.cpu_count()} cores, Python {platform.python_version()}"
