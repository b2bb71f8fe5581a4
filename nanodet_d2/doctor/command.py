"""One check of a data set: what is asked, what is found, and where it is written."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from nanodet_d2.data.files import Problems
from nanodet_d2.data.formats import VOC, YOLO, looks_like
from nanodet_d2.data.splits import split_content
from nanodet_d2.resolve import resolve
from nanodet_d2.runtime.images import MAX_PIXELS, check_max_pixels

from .annotations import Split, examine_annotations
from .folder import data_of_folder
from .images import examine_images, examine_pair
from .report import draw_split, findings_as_text, problems_as_json, split_as_json, split_as_text


def check(args: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """Examine a data set; write ``doctor.json`` and a plot for each split.

    Args:
        args: of the command's verb.

    Returns:
        the findings as text, and as json with its "exit_code": 0 fine, 1 problems.

    Raises:
        ValueError: if the data set cannot be read; ``doctor.json`` says so, too, with exit code 2.
    """
    output = Path(args.output)
    output.mkdir(parents=True, exist_ok=True)
    try:
        splits, problems, notes = examine(args)
    except Exception as error:  # of any kind: exit code 1 would mean "problems found"
        reason = _reason(args, error)
        _write(output, {"exit_code": 2, "error": reason})
        raise ValueError(reason) from error
    lines = []
    for split in splits.values():
        lines.append(split_as_text(split) + "\n")
        draw_split(split, output / f"{split.name}.png", args.strides)
    if len(splits) == 2:
        together = findings_as_text(problems, notes) or ["  nothing to say"]
        lines.append("\n".join(["train and val together", *together]) + "\n")
    count = sum(len(list(x)) for x in (problems, *(s.problems for s in splits.values())))
    facts = {
        "exit_code": int(count > 0),
        **{name: split_as_json(split) for name, split in splits.items()},
        "together": {"problems": problems_as_json(problems), "notes": notes},
    }
    _write(output, facts)
    lines.append(
        f"{count or 'no'} kinds of problems; written to {output}: doctor.json and a plot a split"
    )
    return "\n".join(lines), facts


def pixel_limits(args: argparse.Namespace, cfg: Any) -> dict[str, int]:
    """How many pixels an image of train and of val may have; by their mappers with a config.

    Raises:
        ValueError: for a limit that cannot be kept.
    """
    given = dict.fromkeys(("train", "val"), args.max_pixels)
    if cfg is not None:
        loaders = {"train": "train", "val": "test"}
        given = {
            split: OmegaConf.select(cfg, f"dataloader.{loader}.mapper.max_pixels")
            for split, loader in loaders.items()
        }
    return {k: MAX_PIXELS if x is None else check_max_pixels(x) for k, x in given.items()}


def data_section(args: argparse.Namespace) -> dict[str, Any]:
    """The ``data`` section that the arguments describe; ``val`` is missing if there is none."""
    if _has_all_splits(args):
        whole = {**data_of_folder(args.dataset, args.overrides), **_given(args)}
        sized = any(x.startswith("data.input_size=") for x in args.overrides)
        return whole if sized else {**whole, "input_size": None}  # the command has its own default
    if args.overrides:
        raise ValueError(f"{args.overrides[0]} needs --config, or a folder with all splits")
    data: dict[str, Any] = {"train": _split(args.dataset, args.images)}
    if args.val:
        data["val"] = _split(args.val, args.val_images or args.images)
    return {**data, "classes": None, "imports": [], **_given(args)}


def _has_all_splits(args: argparse.Namespace) -> bool:
    """Whether the data set is a folder whose layout is to be recognised."""
    path = os.path.expanduser(args.dataset)
    alone = not any((args.images, args.val, args.val_images))
    return alone and (os.path.isdir(path) or path.endswith((".yaml", ".yml")))


def _given(args: argparse.Namespace) -> dict[str, Any]:
    """What arguments say of the ``data`` section besides its files."""
    given: dict[str, Any] = {"allow_outside": True} if args.allow_outside else {}
    for key in ("classes", "imports"):
        if getattr(args, key):
            given[key] = getattr(args, key).split(",")
    return given


def _split(dataset: str, images: str | None) -> dict[str, str | None]:
    path = os.path.expanduser(dataset)
    if not os.path.exists(path):
        if os.sep in dataset or dataset.endswith(".json"):
            raise FileNotFoundError(f"{dataset} not found")
        return {"name": dataset}
    form = {VOC: "voc", YOLO: "yolo"}.get(looks_like(path)) if os.path.isdir(path) else "json"
    if form is None:
        raise ValueError(
            f"{dataset} is no data set: it looks like {looks_like(path)}; allowed: a COCO json "
            "file, a folder of Pascal VOC's XML files or of YOLO's text files"
        )
    if not images:
        raise ValueError(f"{dataset} needs --images, the folder of its images")
    return {"name": "", form: dataset, "images": images}


def examine(args: argparse.Namespace) -> tuple[dict[str, Split], Problems, list[str]]:
    """The splits, and problems and notes of them together."""
    cfg = None
    if args.config_file:
        cfg = resolve(args.config_file, args.overrides).cfg
    data = data_section(args) if cfg is None else cfg.data
    limits = pixel_limits(args, cfg)
    size = args.input_size or data.get("input_size") or [416, 416]
    splits, hashes = {}, {}
    for name in (x for x in ("train", "val") if x in data):
        splits[name] = examine_annotations(
            name,
            *split_content(data, name),
            input_size=list(size),
            strides=args.strides,
            allow_outside=bool(data.get("allow_outside")),
        )
    if not args.no_images:
        hashes = {
            k: examine_images(split, workers=args.workers, max_pixels=limits[k])
            for k, split in splits.items()
        }
    if len(splits) < 2:
        return splits, Problems(), []
    pair = (hashes["train"], hashes["val"]) if hashes else None
    return splits, *examine_pair(splits["train"], splits["val"], pair)


def _reason(args: argparse.Namespace, error: Exception) -> str:
    """Why nothing was examined; an error that was not foreseen does not name the data set."""
    if isinstance(error, (ValueError, OSError)):
        return str(error)
    names = [args.config_file or args.dataset, *([args.val] if args.val else [])]
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return f"{' and '.join(names)} cannot be examined: {text}"


def _write(folder: Path, content: dict[str, Any]) -> None:
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / "doctor.json").write_text(text, encoding="utf-8", errors="replace")
