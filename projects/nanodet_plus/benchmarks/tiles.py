#!/usr/bin/env python
"""AP of large sheets of pictures: in slices, in one pass, and of the pictures one by one.

``tiles.py MODEL --data val.json --images FOLDER``, an exported file and a COCO data set. A sheet is
of 4 x 4 pictures, each enlarged to 640 px on its longer side, with gaps in between: slices do not
happen to lie on pictures. Small, medium and large are what they are in the pictures. All detections
count, for a sheet has more than COCO's 100. Choose slices on sheets of other pictures.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import common
import cv2
import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from nanodet_d2.runtime import Detections, Detector, Tiles
from nanodet_d2.runtime.images import load_image

GRID, CELL, GAP = 4, 640, 45
SIDE = GRID * (CELL + GAP) + GAP  # of a sheet, pixels
MOST = 100  # detections of a picture; a sheet has as many as all of its pictures
AREAS = ("AP", "APs", "APm", "APl")  # in COCOeval's order


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a picture of the data set lies on a sheet: its corner there, and its enlargement."""

    image: int
    sheet: int
    x: int
    y: int
    scale: float


def main() -> None:
    parser = common.parser(__doc__, output="tiles.json")
    parser.add_argument("model", type=Path, help="an exported file")
    parser.add_argument("--data", type=Path, required=True, help="annotations in COCO format")
    parser.add_argument("--images", type=Path, required=True, help="folder of its pictures")
    parser.add_argument("--sizes", type=int, nargs="+", default=[640], help="of the slices")
    parser.add_argument("--overlaps", type=float, nargs="+", default=[0.2])
    parser.add_argument("--levels", type=int, nargs="+", default=[1, 2])
    args = parser.parse_args()
    common.start(args)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(args.data))
    detector = Detector(args.model, num_threads=args.threads)
    places = lay_out(truth)
    sheets_truth = on_sheets(truth, places)
    plain = detector.metadata
    rows = {"single pictures": measure(detector, truth, singles(truth, args.images), MOST)}
    detector.metadata = dataclasses.replace(plain, max_detections=MOST * GRID**2)
    pictures = list(sheets(truth, places, args.images))
    most = MOST * GRID**2
    rows["sheets, one pass"] = measure(detector, sheets_truth, pictures, most)
    detector.metadata = plain
    choices = itertools.product(args.sizes, args.overlaps, args.levels, (True, False))
    for size, overlap, levels, whole in choices:
        detector.tiles = Tiles(size=size, overlap=overlap, whole=whole, levels=levels)
        name = f"sheets, tiles {size}, overlap {overlap:g}, levels {levels}"
        name += ", and whole" if whole else ""
        rows[name] = measure(detector, sheets_truth, pictures, most)
    header = ["", *AREAS, "s per picture"]
    table = [(name, *(f"{x[key]:.2f}" for key in header[1:])) for name, x in rows.items()]
    common.show(common.table(table, header))
    common.save(args.output, {"rows": rows}, args.device)


def lay_out(truth: COCO) -> list[Place]:
    """The pictures in the order of their ids, row by row; the last sheet may have fewer."""
    places = []
    for i, key in enumerate(sorted(truth.getImgIds())):
        sheet, cell = divmod(i, GRID * GRID)
        entry = truth.imgs[key]
        scale = CELL / max(entry["height"], entry["width"])
        row, column = divmod(cell, GRID)
        x, y = (GAP + i * (CELL + GAP) for i in (column, row))
        places.append(Place(key, sheet, x, y, scale))
    return places


def on_sheets(truth: COCO, places: list[Place]) -> COCO:
    """The annotations in pixels of the sheets, with the areas that they have in the pictures."""
    annotations: list[dict[str, Any]] = []
    for place in places:
        for x in truth.imgToAnns[place.image]:
            left, top, width, height = (v * place.scale for v in x["bbox"])
            box = [left + place.x, top + place.y, width, height]
            kept = {key: x[key] for key in ("area", "category_id", "iscrowd")}
            number = len(annotations) + 1
            annotations.append({"id": number, "image_id": place.sheet, "bbox": box, **kept})
    result = COCO()
    numbers = sorted({place.sheet for place in places})
    result.dataset = {
        "images": [{"id": i, "height": SIDE, "width": SIDE} for i in numbers],
        "annotations": annotations,
        "categories": truth.dataset["categories"],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        result.createIndex()
    return result


def singles(truth: COCO, folder: Path) -> Iterator[tuple[int, np.ndarray]]:
    for key in sorted(truth.getImgIds()):
        yield key, load_image(folder / truth.imgs[key]["file_name"])


def sheets(truth: COCO, places: list[Place], folder: Path) -> Iterator[tuple[int, np.ndarray]]:
    for number in sorted({place.sheet for place in places}):
        sheet = np.full((SIDE, SIDE, 3), 114, np.uint8)
        for place in (x for x in places if x.sheet == number):
            image = load_image(folder / truth.imgs[place.image]["file_name"])
            size = [round(v * place.scale) for v in image.shape[1::-1]]
            image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
            sheet[place.y : place.y + size[1], place.x : place.x + size[0]] = image
        yield number, sheet


def measure(detector: Detector, truth: COCO, pictures: Any, most: int) -> dict[str, float]:
    """AP by area, and seconds a picture."""
    ids = {name: key for key, name in ((k, v["name"]) for k, v in truth.cats.items())}
    results, seconds, count = [], 0.0, 0
    for key, image in pictures:
        begin = time.perf_counter()
        found = detector(image)
        seconds, count = seconds + time.perf_counter() - begin, count + 1
        results += as_results(key, found, ids)
    with contextlib.redirect_stdout(io.StringIO()):
        scoring = COCOeval(truth, truth.loadRes(results), "bbox")
        scoring.params.maxDets = [1, 10, most]
        scoring.evaluate()
        scoring.accumulate()
    precision = scoring.eval["precision"]  # (IoUs, recalls, classes, areas, limits)
    values = [precision[:, :, :, i, -1] for i in range(len(AREAS))]
    told = {k: 100 * float(np.mean(x[x > -1])) for k, x in zip(AREAS, values)}
    return {**told, "s per picture": seconds / count}


def as_results(key: int, found: Detections, ids: dict[str, int]) -> list[dict[str, Any]]:
    boxes = found.xyxy.copy()
    boxes[:, 2:] -= boxes[:, :2]
    return [
        {"image_id": key, "category_id": ids[name], "bbox": box, "score": score}
        for name, box, score in zip(found.names, boxes.tolist(), found.confidence.tolist())
    ]


if __name__ == "__main__":
    main()
