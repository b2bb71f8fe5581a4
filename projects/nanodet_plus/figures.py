#!/usr/bin/env python
"""Draws the figures of docs/how_it_works.md from a training on drawn pictures, in minutes.

The detector is the smallest one with its auxiliary branch. It is trained from random weights, and
looked at on the way: whom the assignment chooses, how good both heads are, what each loss sees.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import numpy as np  # noqa: E402
import torch  # noqa: E402
from detectron2.config import instantiate  # noqa: E402
from detectron2.structures import Boxes, Instances  # noqa: E402
from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.patches import FancyBboxPatch, Rectangle  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from nanodet_d2.config import get_config  # noqa: E402
from nanodet_d2.data.shapes import CLASS_NAMES, box_of, draw_picture  # noqa: E402
from nanodet_d2.modeling.head.assigner import Assignment, GroundTruth  # noqa: E402
from nanodet_d2.modeling.head.box_coding import encode_distances  # noqa: E402
from nanodet_d2.modeling.head.losses import (  # noqa: E402
    background_focal_loss,
    focal_correction,
    giou_loss,
    pairwise_iou,
)

SIDE = 160  # of a picture, px
BATCH = 16
WARMUP = 50  # steps
SHOWN_AT = (0, 100, 400)  # steps, of the assignment
MEASURED_AT = (0, 25, 50, 100, 150, 200, 300, 400)
SHOWN = 3  # index of the picture that is shown
HELD_OUT = 64  # pictures that both heads are measured on
COLOURS = plt.get_cmap("tab10")


@dataclasses.dataclass(frozen=True)
class Seen:
    """What the detector makes of some pictures: raw outputs (N, P, K) of both heads."""

    raw: Tensor
    guide: Tensor
    priors: Tensor  # (P, 3)
    truth: GroundTruth
    assigned: Assignment


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("docs/images"), help="folder")
    parser.add_argument("--steps", type=int, default=400, help="of the training")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    draw_network(args.output / "network.png")
    torch.manual_seed(0)
    config = get_config("nanodet_plus/demo_shapes.py")
    config.data.classes = list(CLASS_NAMES)
    config.model.aux_detach_iter = args.steps + 1  # the branch stays
    model = instantiate(config.model)
    shown, measured = train(model, config, args.steps)
    draw_assignment(shown, args.output / "assignment.png")
    draw_guide(measured, args.output / "guide.png")
    draw_losses(shown[max(shown)], model, args.output / "losses.png")


def sample(split: str, index: int) -> dict[str, Any]:
    """A drawn picture as the detector takes it."""
    picture, objects = draw_picture(0, split, index, SIDE)
    boxes = np.array([box_of(x.full) for x in objects], np.float32).reshape(-1, 4)
    instances = Instances((SIDE, SIDE))
    instances.gt_boxes = Boxes(torch.from_numpy(boxes))
    classes = [CLASS_NAMES.index(x.name) for x in objects]
    instances.gt_classes = torch.tensor(classes, dtype=torch.int64)
    image = torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))
    return {"image": image, "instances": instances}


def train(
    model: nn.Module, config: Any, steps: int
) -> tuple[dict[int, Seen], dict[int, tuple[float, float]]]:
    """Train; by step, what is seen of the shown picture, and the overlaps of head and guide."""
    pictures = [sample("train", i) for i in range(600)]
    held_out = [sample("val", i) for i in range(HELD_OUT)]
    config.optimizer.params.model = model
    optimizer = instantiate(config.optimizer)

    def rate(step: int) -> float:
        return min((step + 1) / WARMUP, 0.5 * (1 + math.cos(math.pi * step / steps)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    shown, measured = {}, {}
    generator = np.random.default_rng(0)
    for step in range(steps + 1):
        if step in SHOWN_AT:
            shown[step] = look(model, [held_out[SHOWN]])
        if step in MEASURED_AT:
            measured[step] = overlaps(model, look(model, held_out))
        if step == steps:
            break
        model.train()
        batch = [pictures[i] for i in generator.choice(len(pictures), BATCH, replace=False)]
        optimizer.zero_grad()
        sum(model(batch).values()).backward()
        optimizer.step()
        schedule.step()
    return shown, measured


@torch.no_grad()
def look(model: nn.Module, samples: list[dict[str, Any]]) -> Seen:
    """Both heads' outputs for pictures, and the assignment that the guide's make."""
    model.eval()
    features = model.backbone(model.preprocess_image(samples).tensor)
    pyramid = model.neck(features)
    raw, guide = model.head(pyramid), model.auxiliary_forward(features, pyramid)
    priors, truth = model.head.priors(pyramid), model.ground_truth(samples)
    seen = model.head.decode(guide, priors)
    assigned = model.head.assigner(seen.logits, seen.boxes, priors, truth)
    return Seen(raw, guide, priors, truth, assigned)


def overlaps(model: nn.Module, seen: Seen) -> tuple[float, float]:
    """Of head and guide: the mean IoU of an object and the box scored best for its class."""
    results = []
    for raw in (seen.raw, seen.guide):
        logits, _, boxes = model.head.decode(raw, seen.priors)
        iou = pairwise_iou(seen.truth.boxes, boxes)  # (N, G, P)
        x, y = seen.priors[:, 0], seen.priors[:, 1]
        left, top, right, bottom = seen.truth.boxes.unsqueeze(-1).unbind(dim=-2)
        inside = (x > left) & (x < right) & (y > top) & (y < bottom)
        index = seen.truth.classes.unsqueeze(-1).expand(-1, -1, logits.shape[1])
        scores = logits.transpose(1, 2).gather(1, index).masked_fill(~inside, -math.inf)
        best = iou.gather(2, scores.argmax(dim=2, keepdim=True)).squeeze(2)
        results.append(float(best[seen.truth.valid].mean()))
    return results[0], results[1]


def draw_network(path: Path) -> None:
    """The network as it is built for 320 px, with the shapes that its parts produce."""
    config = get_config("nanodet_plus/nanodet_plus_m_320.py")
    config.model.backbone.pretrained = False
    model = instantiate(config.model).eval()
    with torch.no_grad():
        features = model.backbone(torch.zeros(1, 3, 320, 320))
        pyramid = model.neck(features)
        maps = model.head.maps(pyramid)
    classes, sides = model.head.num_classes, 4 * (model.head.reg_max + 1)
    columns = [
        ("picture", [(3, 320, 320)]),
        ("backbone", [tuple(x.shape[1:]) for x in features.values()]),
        ("neck", [tuple(x.shape[1:]) for x in pyramid.values()]),
        (f"head: {classes} classes,\n{sides} = 4 sides x 8", [tuple(x.shape[1:]) for x in maps]),
    ]
    figure, axes = plt.subplots(figsize=(9, 3.6))
    for i, (title, shapes) in enumerate(columns):
        axes.text(2.4 * i + 0.85, 4.5, title, ha="center", va="center", weight="bold", fontsize=9)
        for j, shape in enumerate(shapes):
            corner = 2.4 * i, 3.2 - j
            style = {"boxstyle": "round,pad=0.05", "facecolor": COLOURS(i), "alpha": 0.35}
            axes.add_patch(FancyBboxPatch(corner, 1.7, 0.6, **style))
            text = " x ".join(map(str, shape))
            axes.text(corner[0] + 0.85, corner[1] + 0.3, text, ha="center", va="center", fontsize=9)
        if i:
            arrow = {"arrowstyle": "->", "color": "gray"}
            axes.annotate("", (2.4 * i - 0.1, 3.5), (2.4 * i - 0.6, 3.5), arrowprops=arrow)
    for j, stride in enumerate(model.head.strides):
        axes.text(9.1, 3.5 - j, f"stride {stride}", va="center", color="gray", fontsize=9)
    axes.set(xlim=(-0.3, 10.1), ylim=(-0.2, 5))
    axes.axis("off")
    save(figure, path)


def picture_on(axes: Axes, truth: GroundTruth) -> None:
    """The shown picture with its objects, each in its colour."""
    axes.imshow(draw_picture(0, "val", SHOWN, SIDE)[0][..., ::-1], alpha=0.6)
    for i, (x0, y0, x1, y1) in enumerate(truth.boxes[0][truth.valid[0]].tolist()):
        frame = Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=COLOURS(i), linewidth=2)
        axes.add_patch(frame)
    axes.set(xticks=[], yticks=[], xlim=(0, SIDE), ylim=(SIDE, 0))


def owners(seen: Seen) -> tuple[Tensor, Tensor]:
    """Indices of the cells that learn an object in the first picture, and of their objects."""
    (cells,) = torch.where(seen.assigned.scores[0] > 0)
    same = seen.assigned.boxes[0, cells].unsqueeze(1) == seen.truth.boxes[0].unsqueeze(0)
    return cells, same.all(dim=-1).float().argmax(dim=1)


def draw_assignment(shown: dict[int, Seen], path: Path) -> None:
    """The cells that learn each object, at some steps."""
    figure, rows = plt.subplots(1, len(shown), figsize=(4 * len(shown), 4.3))
    for axes, (step, seen) in zip(rows, shown.items()):
        picture_on(axes, seen.truth)
        cells, objects = owners(seen)
        x, y, stride = seen.priors[cells].unbind(dim=1)
        colours = [COLOURS(int(i)) for i in objects]
        axes.scatter(x, y, s=4 * stride, c=colours, edgecolors="black", linewidths=0.7)
        mean = float(seen.assigned.scores[0, cells].mean())
        axes.set_title(f"step {step}: {len(cells)} cells, mean IoU {mean:.2f}")
    save(figure, path)


def draw_guide(measured: dict[int, tuple[float, float]], path: Path) -> None:
    """How well head and guide place their boxes in held-out pictures, over the training."""
    figure, axes = plt.subplots(figsize=(6, 3.6))
    for i, name in enumerate(("head", "guide")):
        axes.plot(list(measured), [x[i] for x in measured.values()], marker="o", label=name)
    axes.set(xlabel="training step", ylabel="IoU of the best-scored box", ylim=(0, 1))
    axes.legend()
    axes.grid(alpha=0.3)
    save(figure, path)


def draw_losses(seen: Seen, model: nn.Module, path: Path) -> None:
    """What each of the three losses sees of the shown picture, at the end of the training."""
    head = model.head
    logits, _, boxes = head.decode(seen.raw, seen.priors)
    cells, objects = owners(seen)
    own = seen.assigned.labels[0, cells]
    quality = background_focal_loss(logits)[0]
    quality[cells] += focal_correction(logits[0, cells, own], seen.assigned.scores[0, cells])
    figure, (first, second, third) = plt.subplots(1, 3, figsize=(13, 4.2))
    fine = seen.priors[:, 2] == head.strides[0]
    side = int(fine.sum()) // (SIDE // head.strides[0])
    first.imshow(quality[fine].reshape(-1, side), cmap="magma", extent=(0, SIDE, SIDE, 0))
    first.set(xticks=[], yticks=[], title="quality focal loss, cells of stride 8")
    picture_on(second, seen.truth)
    for cell, i in zip(cells.tolist(), objects.tolist()):
        x0, y0, x1, y1 = boxes[0, cell].tolist()
        second.add_patch(
            Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=COLOURS(i), alpha=0.4)
        )
    giou = giou_loss(boxes[0, cells], seen.assigned.boxes[0, cells]).mean()
    second.set_title(f"GIoU loss, of these boxes: mean {float(giou):.2f}")
    best = cells[seen.assigned.scores[0, cells].argmax()]
    own_logits = seen.raw[0, best, head.num_classes :].reshape(4, -1).softmax(dim=-1)
    true = encode_distances(seen.priors[best], seen.assigned.boxes[0, best], head.reg_max)
    for i, name in enumerate(("left", "top", "right", "bottom")):
        third.plot(own_logits[i], marker="o", color=COLOURS(i), label=name)
        third.axvline(float(true[i]), color=COLOURS(i), linestyle=":")
    third.set(xlabel="distance in strides", title="distribution focal loss, one cell")
    third.legend(title="dotted: true")
    save(figure, path)


def save(figure: Any, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)


if __name__ == "__main__":
    main()
