#!/usr/bin/env python
"""Mutates valid files and reads them, for a while: fuzz.py --minutes 10 [--seed 0] [--targets coco]

A reading may succeed or end in a ``ValueError`` or ``FileNotFoundError`` of one line that names the
file. Anything else is a finding, as is a second of processor time; its input is kept. The exit code
is 1 if there are findings.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import faulthandler
import json
import logging
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import torch
from mutations import mutate_bytes, mutate_json, mutate_words
from PIL import Image

import nanodet_d2  # noqa: F401  first, because it lets an old detectron2 import beside a new Pillow
from nanodet_d2.checkpoint import read_weights
from nanodet_d2.checkpoint.faults import DamagedError
from nanodet_d2.data.images import ImageError, read_image
from nanodet_d2.data.readers.coco import read_coco_json
from nanodet_d2.data.readers.voc import read_voc
from nanodet_d2.data.readers.yolo import read_yolo
from nanodet_d2.data.records import categories_by_id, to_records

SECONDS = 1.0  # of processor time per reading
NAMES = ("cat", "traffic light", "Hündin")


class Slow(BaseException):
    """A reading took too long; no handler of the readers may catch it."""


# Targets: each makes its valid files below a folder, and reads them.


class Target:
    """A reader, the one file of its input that is mutated, and the ways to mutate it."""

    def __init__(self, folder: Path, seed_file: str, read: Callable[[], Any], *mutations: Callable):
        self.file = folder / seed_file
        self.valid = self.file.read_bytes()
        self.read = read
        self.mutations = mutations

    def mutant(self, rng: random.Random) -> bytes:
        return rng.choice(self.mutations)(self.valid, rng)


def make_targets(folder: Path) -> dict[str, Target]:
    """All targets by name, with their files below ``folder``."""
    images = folder / "images"
    images.mkdir(parents=True)
    for stem in "ab":
        Image.effect_noise((40, 30), 90).convert("RGB").save(images / f"{stem}.png")
    _write_annotations(folder)
    content = {"model": {"neck.a": torch.zeros(4, 3), "head.b": torch.ones(2)}, "iteration": 3}
    torch.save(content, folder / "zip.pth")
    torch.save(content, folder / "legacy.pth", _use_new_zipfile_serialization=False)
    picture = Image.effect_noise((40, 30), 90)
    picture.save(folder / "picture.jpg")
    picture.save(folder / "picture.png")
    picture.save(folder / "picture.tif", compression="tiff_lzw")

    def records(read: Callable[[], dict], source: str) -> list:
        content = read()
        index = {key: i for i, key in enumerate(categories_by_id(content, source))}
        return to_records(content, source, str(images), index)

    def coco() -> list:
        path = str(folder / "train.json")
        return records(lambda: read_coco_json(path), path)

    def voc() -> list:
        path = str(folder / "voc")
        return records(lambda: read_voc(path, str(images), NAMES), path)

    def yolo() -> list:
        path = str(folder / "yolo")
        return records(lambda: read_yolo(path, str(images), NAMES), path)

    def weights(name: str) -> Callable[[], Any]:
        return lambda: read_weights(str(folder / name))

    def image(name: str) -> Callable[[], Any]:
        return lambda: read_image({"file_name": str(folder / name)}, "BGR", max_pixels=10**6)

    return {
        "coco": Target(folder, "train.json", coco, mutate_bytes, mutate_json),
        "voc": Target(folder, "voc/a.xml", voc, mutate_bytes, mutate_words),
        "yolo": Target(folder, "yolo/a.txt", yolo, mutate_bytes, mutate_words),
        "weights": Target(folder, "zip.pth", weights("zip.pth"), mutate_bytes),
        "legacy weights": Target(folder, "legacy.pth", weights("legacy.pth"), mutate_bytes),
        "jpg": Target(folder, "picture.jpg", image("picture.jpg"), mutate_bytes),
        "png": Target(folder, "picture.png", image("picture.png"), mutate_bytes),
        "tif": Target(folder, "picture.tif", image("picture.tif"), mutate_bytes),
    }


def _write_annotations(folder: Path) -> None:
    boxes = [[5.0, 6.0, 20.5, 12.0], [0.0, 0.0, 40.0, 30.0]]
    content = {
        "images": [
            {"id": i, "file_name": f"{x}.png", "width": 40, "height": 30}
            for i, x in ((7, "a"), (2, "b"))
        ],
        "annotations": [
            {"id": i, "image_id": 7, "category_id": 3 * i, "bbox": box, "area": 9.5, "iscrowd": 0}
            for i, box in enumerate(boxes, start=1)
        ],
        "categories": [{"id": 3 * i, "name": name} for i, name in enumerate(NAMES)],
    }
    (folder / "train.json").write_text(json.dumps(content))
    for name in ("voc", "yolo"):
        (folder / name).mkdir()
    fields = zip(("xmin", "ymin", "xmax", "ymax"), (5, 6, 25, 18))
    box = "".join(f"<{key}>{value}</{key}>" for key, value in fields)
    objects = "".join(f"<object><name>{x}</name><bndbox>{box}</bndbox></object>" for x in NAMES)
    size = "<size><width>40</width><height>30</height></size>"
    for stem in "ab":
        text = f"<annotation><filename>{stem}.png</filename>{size}{objects}</annotation>"
        (folder / "voc" / f"{stem}.xml").write_text(text, encoding="utf-8")
        (folder / "yolo" / f"{stem}.txt").write_text("0 0.5 0.5 0.25 0.5\n2 .1 .1 .2 1e-1 0.9\n")


# Runs


def verdict(target: Target, data: bytes) -> tuple[str, str | None]:
    """What one reading of a mutant came to, and what is wrong with that (None if nothing)."""
    target.file.write_bytes(data)
    try:
        with _limited():
            target.read()
        return "read", None
    except (DamagedError, ImageError) as error:
        outcome, text = "refused", str(error)
    except (ValueError, FileNotFoundError) as error:
        outcome, text = "refused", str(error)
        if type(error) not in (ValueError, FileNotFoundError):
            return "crash", repr(error)
    except (Exception, Slow) as error:
        return "slow" if isinstance(error, Slow) else "crash", repr(error)
    finally:
        target.file.write_bytes(target.valid)
    if "\n" in text:
        return outcome, f"more than one line: {text!r}"
    place = target.file.parent if target.file.parent.name in ("voc", "yolo") else target.file
    return outcome, None if str(place) in text else f"the file is not named: {text!r}"


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    """Raise ``Slow`` after a second of processor time; end the process if that cannot."""

    def ring(*_: Any) -> None:
        raise Slow(f"more than {SECONDS} s")

    before = signal.signal(signal.SIGPROF, ring)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    faulthandler.dump_traceback_later(60, exit=True, file=sys.__stderr__)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGPROF, before)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--targets", nargs="+", help="names; all if not given")
    parser.add_argument("--keep", default="fuzz_findings", help="folder for inputs of findings")
    args = parser.parse_args(arguments)

    folder = Path(tempfile.mkdtemp(prefix="fuzz_"))
    targets = make_targets(folder)
    chosen = args.targets or list(targets)
    if unknown := sorted(set(chosen) - set(targets)):
        parser.error(f"unknown targets {unknown}; there are {list(targets)}")
    outcomes: dict[str, collections.Counter] = {name: collections.Counter() for name in chosen}
    findings: dict[str, str] = {}
    began = said = time.monotonic()
    count = 0
    while (now := time.monotonic()) - began < 60 * args.minutes:
        name = chosen[count % len(chosen)]
        data = targets[name].mutant(random.Random(f"{args.seed} {count}"))
        outcome, wrong = verdict(targets[name], data)
        outcomes[name][outcome] += 1
        if wrong is not None and wrong[:40] not in findings:
            findings[wrong[:40]] = f"{name}, input {count}: {wrong[:500]}"
            Path(args.keep).mkdir(exist_ok=True)
            (Path(args.keep) / f"{count}_{targets[name].file.name}").write_bytes(data)
            print(findings[wrong[:40]], flush=True)
        count += 1
        if now - said > 30:
            said = now
            left = 60 * args.minutes - (now - began)
            print(f"{count} inputs, {len(findings)} findings, {left:.0f} s left", flush=True)
    shutil.rmtree(folder)
    for name, counter in outcomes.items():
        print(f"{name}: {sum(counter.values())} inputs, {dict(counter)}")
    print(f"{count} inputs in {args.minutes:g} minutes, seed {args.seed}: {len(findings)} findings")
    return int(bool(findings))


if __name__ == "__main__":
    torch.set_num_threads(1)
    logging.getLogger("nanodet_d2").setLevel(logging.ERROR)  # repairs are counted there
    sys.exit(main())
