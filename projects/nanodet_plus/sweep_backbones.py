#!/usr/bin/env python
"""Try every timm and torchvision network up to a size as a backbone, and write BACKBONES.md.

Each network is built in the short form, its declared shapes are compared with the produced ones,
and a NanoDet-Plus on it runs a training step. Results are kept in a json-lines file as they come,
so that an interrupted sweep goes on where it stopped.
"""

from __future__ import annotations

import argparse
import functools
import json
import logging
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from detectron2.modeling import Backbone
from detectron2.structures import Boxes, Instances
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from nanodet_d2.modeling import (
    GhostPAN,
    NanoDetPlus,
    NanoDetPlusHead,
    TimmBackbone,
    TorchvisionBackbone,
)

MAX_PARAMETERS = 60e6
SIZE = 256
TABLE = Path(__file__).parent / "BACKBONES.md"


def main() -> None:
    args = parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(args.threads)
    done = {row["key"] for row in read_rows(args.results) if row["ok"] or not args.retry}
    todo = [item for item in candidates(args.match) if item[0] not in done]
    with args.results.open("a") as f:
        for key, build, own_size in tqdm(todo, unit="network", smoothing=0.05):
            f.write(json.dumps({"key": key, **try_network(build, own_size)}) + "\n")
            f.flush()
    write_table(read_rows(args.results), args.table)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("output/backbones.jsonl"))
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--match", default="", help="only networks with this in their name")
    parser.add_argument("--retry", action="store_true", help="try again what failed before")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    args.results.parent.mkdir(parents=True, exist_ok=True)
    return args


def candidates(match: str = "") -> Iterator[tuple[str, Callable[..., Backbone], int]]:
    """Key, constructor and own input size of each network within the limit."""
    for name in timm.list_models():
        key = f"timm {name}"
        if match in key and count_parameters(timm.create_model, name) <= MAX_PARAMETERS:
            own = timm.get_pretrained_cfg(name, allow_unregistered=False).input_size[-1]
            yield key, functools.partial(TimmBackbone, name), own
    for name in torchvision.models.list_models(module=torchvision.models):
        key = f"torchvision {name}"
        if match in key and count_parameters(torchvision.models.get_model, name) <= MAX_PARAMETERS:
            yield key, functools.partial(TorchvisionBackbone, name), 224


def count_parameters(create: Callable[..., torch.nn.Module], name: str) -> int:
    try:
        with torch.device("meta"):  # no memory for the weights
            network = create(name)
    except NotImplementedError:  # it computes with tensors while it is built
        network = create(name)
    return sum(p.numel() for p in network.parameters())


def try_network(build: Callable[..., Backbone], own_size: int) -> dict[str, Any]:
    """What became of it: a row of figures, or the reason; ``clear`` tells a reason for users.

    A network of one input size is tried again as one built for 256 px, then at its own size.
    """
    first = None
    for size, arguments in ((SIZE, {}), (SIZE, {"img_size": SIZE}), (own_size, {})):
        try:
            backbone = build(**arguments)
            size = -(-size // backbone.size_divisibility) * backbone.size_divisibility
            return {"ok": True, "size": size, **measure(backbone, size)}
        except Exception as error:  # the sweep is there to find out which there are
            first = first or error
        if "takes images of" not in str(first):
            break
    reason = f"{type(first).__name__}: {' '.join(str(first).split())}"
    return {"ok": False, "clear": isinstance(first, ValueError), "reason": reason[:300]}


def measure(backbone: Backbone, size: int) -> dict[str, Any]:
    """Figures of a backbone that holds what it declares and trains.

    Raises:
        AssertionError: if a declared shape is not the produced one, or a parameter has no gradient.
    """
    images = torch.randn(1, 3, size, size)
    backbone.eval()
    with torch.no_grad():
        features = backbone(images)
    with FlopCounterMode(display=False) as counter:
        backbone(images)
    shapes = backbone.output_shape()
    for name, spec in shapes.items():
        side = -(-size // spec.stride)
        assert features[name].shape == (1, spec.channels, side, side), name
    train_step(backbone, size)
    return {
        "strides": [x.stride for x in shapes.values()],
        "channels": [x.channels for x in shapes.values()],
        "params": sum(p.numel() for p in backbone.parameters()),
        "macs": counter.get_total_flops() // 2,
        "ms": forward_ms(backbone, size),
    }


def forward_ms(backbone: Backbone, size: int) -> float:
    """The fastest of three passes of one image, in milliseconds."""
    images, elapsed = torch.randn(1, 3, size, size), []
    backbone.eval()
    with torch.no_grad():
        for _ in range(3):
            start = time.perf_counter()
            backbone(images)
            elapsed.append(time.perf_counter() - start)
    return 1000 * min(elapsed)


def train_step(backbone: Backbone, size: int) -> None:
    model = NanoDetPlus(
        backbone=backbone,
        neck=functools.partial(GhostPAN, out_channels=32),
        head=functools.partial(NanoDetPlusHead, num_classes=3),
    ).train()
    instances = Instances(
        (size, size),
        gt_boxes=Boxes(torch.tensor([[16.0, 16.0, size / 2, size / 2]])),
        gt_classes=torch.tensor([1]),
    )
    batch = [{"image": torch.rand(3, size, size) * 255, "instances": instances} for _ in range(2)]
    losses = model(batch)
    assert all(torch.isfinite(x) for x in losses.values()), "a loss is not finite"
    sum(losses.values()).backward()
    without = [n for n, p in backbone.named_parameters() if p.requires_grad and p.grad is None]
    assert not without, f"{len(without)} parameters without a gradient, e.g. {without[0]}"


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The latest result of each network."""
    lines = path.read_text().splitlines() if path.exists() else []
    return list({row["key"]: row for row in map(json.loads, lines)}.values())


def write_table(rows: list[dict[str, Any]], path: Path) -> None:
    """The sweep as Markdown: first the summary, then what runs, then what is refused and why."""
    good = sorted((r for r in rows if r["ok"]), key=lambda r: r["key"])
    bad = sorted((r for r in rows if not r["ok"]), key=lambda r: r["key"])
    lines = [
        "# Backbones",
        "",
        f"{len(good)} of {len(rows)} networks of at most {MAX_PARAMETERS / 1e6:.0f} M parameters "
        f"({100 * len(good) / max(len(rows), 1):.1f} %) run in the short form, without weights: "
        "declared shapes equal the produced ones, and a NanoDet-Plus on them runs a training step. "
        "The others are refused with the reason given below. Written by `sweep_backbones.py` "
        f"(timm {timm.__version__}, torchvision {torchvision.__version__}, "
        f"torch {torch.__version__}). "
        "ms: one image, the fastest of three passes, 2 CPU threads; for orders of magnitude.",
        "",
        "| network | input | strides | channels | params M | MACs G | ms |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in good:
        strides, channels = (", ".join(map(str, r[k])) for k in ("strides", "channels"))
        lines.append(
            f"| {r['key']} | {r['size']} | {strides} | {channels} | {r['params'] / 1e6:.2f} "
            f"| {r['macs'] / 1e9:.2f} | {r['ms']:.0f} |"
        )
    lines += ["", "| refused | reason |", "|---|---|"]
    lines += [f"| {r['key']} | {r['reason'].replace('|', '/')} |" for r in bad]
    path.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
