#!/usr/bin/env python
"""Draw the detections of official COCO weights on your own pictures."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import cv2
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.data import MetadataCatalog
from detectron2.utils.logger import setup_logger
from tqdm import tqdm

from nanodet_d2.checkpoint import load_weights
from nanodet_d2.data.mapper import read_image
from nanodet_d2.visualization import draw_detections

CONFIGS = Path(__file__).parent / "configs"
SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}
logger = logging.getLogger("nanodet_d2.demo")


def main() -> None:
    args = parse_args()
    setup_logger(name="nanodet_d2")
    cfg = LazyConfig.load(str(args.config_file))
    model = instantiate(cfg.model).to(cfg.train.device).eval()
    load_weights(model, args.weights, require_all=True)
    mapper = instantiate(cfg.dataloader.test.mapper)
    metadata = MetadataCatalog.get(cfg.data.train.name)

    args.output.mkdir(parents=True, exist_ok=True)
    failed = []
    for path in tqdm(list_images(args.images), unit="image"):
        record = {"file_name": str(path)}
        try:
            image = read_image(record, "BGR")
        except ValueError as error:  # one bad picture does not cost the others
            failed.append(str(error))
            continue
        with torch.no_grad():
            found = model([mapper(record)])[0]["instances"]
        picture = draw_detections(image, found, metadata, score_thresh=args.score)
        cv2.imwrite(str(args.output / f"{path.stem}.png"), picture)
    for message in failed:
        logger.error(message)
    logger.info("Pictures are in %s", args.output)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", nargs="+", type=Path, required=True, help="files or folders")
    parser.add_argument("--weights", required=True, help="path or URL of a checkpoint")
    parser.add_argument(
        "--config-file", type=Path, default=CONFIGS / "nanodet_plus_m_416.py", help="lazy config"
    )
    parser.add_argument("--score", type=float, default=0.35, help="lowest score to draw")
    parser.add_argument("--output", type=Path, default=Path("output/demo_coco"))
    return parser.parse_args()


def list_images(paths: list[Path]) -> list[Path]:
    """The files named, and the pictures in the folders named.

    Raises:
        ValueError: for a path that is not there, or if there is no picture at all.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            files += sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES)
        elif path.is_file():
            files.append(path)
        else:
            raise ValueError(f"{path} is neither a picture nor a folder")
    if not files:
        raise ValueError(f"no pictures in {[str(p) for p in paths]}; looked for {sorted(SUFFIXES)}")
    return files


if __name__ == "__main__":
    main()
