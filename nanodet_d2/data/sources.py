"""Which files each split of a config's ``data`` section has, and what is in them."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from .division import SHARE, Rule, keep_part, val_names
from .readers import READERS, Layout, Source, find_layout, voc
from .readers.coco_schema import is_evaluable
from .records import categories_by_id

DIFFICULT = ("keep", "ignore")


class SplitSource(NamedTuple):
    """A split's files, and which part of them it has; hashable.

    Attributes:
        files: where they lie.
        side: "train" or "val" of a division; empty for all images.
        rule: of the division.
    """

    files: Source
    side: str = ""
    rule: Rule = Rule()

    @property
    def name(self) -> str:
        """The annotations', for messages."""
        return self.files.annotations


class Summary(NamedTuple):
    """What is kept of a split, unlike its content, which may be gigabytes."""

    categories: dict[int, str]  # id -> name
    evaluable: bool  # by pycocotools, as its file is
    images: int
    boxes: int
    names: tuple[str, ...]  # of the images, where they are part of a division


def source_of(data: Mapping[str, Any], split: str) -> SplitSource | None:
    """The files of a split; None for a registered data set.

    Args:
        data: the ``data`` section of a config.
        split: "train" or "val".

    Raises:
        ValueError: if there are several, or they are not to be found.
    """
    given = _given(data, split)
    if data.get("source") and given is None:
        return _of_folder(data, split)
    whole = given if split == "train" else _given(data, "train")
    divided = data.get("val_share") or data.get("split_file")
    if whole is not None and divided and _given(data, "val") is None:
        return SplitSource(whole, split, rule_of(data))
    return SplitSource(given) if given is not None else None


def layout_of(data: Mapping[str, Any]) -> Layout:
    """How the folder ``data.source`` is laid out; classes are those of all its splits.

    Raises:
        FileNotFoundError, ValueError: as ``find_layout``, or for a ``data.difficult`` that is not
            known.
    """
    difficult = data.get("difficult") or DIFFICULT[0]
    if difficult not in DIFFICULT:
        raise ValueError(f"data.difficult={difficult}; allowed: {', '.join(DIFFICULT)}")
    return _layout(
        os.path.expanduser(str(data["source"])),
        data.get("layout"),
        tuple(data.get("classes") or ()),
        difficult == "ignore",
    )


def rule_of(data: Mapping[str, Any]) -> Rule:
    """How ``data`` says to divide images.

    Raises:
        ValueError: for a share or a seed that is no number.
    """
    share, seed = data.get("val_share"), data.get("split_seed")
    try:
        share, seed = float(SHARE if share is None else share), int(seed or 0)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"data.val_share={share}, data.split_seed={seed}; allowed: a number above 0 and below "
            "1, and a whole number"
        ) from error
    return Rule(
        share=share,
        seed=seed,
        group_by=str(data.get("group_by") or ""),
        file=os.path.expanduser(str(data.get("split_file") or "")),
    )


def read_split(source: SplitSource) -> dict[str, Any]:
    """The content of a split in COCO's form, before anything in it is repaired."""
    content = READERS[source.files.form](source.files)
    if not source.side:
        return content
    val = _val_names(source.files, source.rule)
    names = {x["file_name"] for x in content["images"]}
    return keep_part(content, names & val if source.side == "val" else names - val)


@functools.lru_cache(maxsize=32)
def summary(source: SplitSource) -> Summary:
    """What is kept of a split."""
    content = read_split(source)
    # What a reader has left out, or a division, is still in the file.
    whole = source.files.form == "json" and not source.side and not content.get("problems")
    return Summary(
        categories_by_id(content, source.name),
        whole and is_evaluable(content),
        len(content["images"]),
        len(content["annotations"]),
        tuple(x["file_name"] for x in content["images"]) if source.side else (),
    )


@functools.lru_cache(maxsize=8)
def _val_names(files: Source, rule: Rule) -> frozenset[str]:
    return frozenset(val_names(READERS[files.form](files), files.images, rule))


def _given(data: Mapping[str, Any], split: str) -> Source | None:
    """The files that the split itself names."""
    section = data.get(split) or {}
    forms = [form for form in READERS if section.get(form)]
    if len(forms) > 1:
        raise ValueError(f"data.{split} has {' and '.join(forms)}; allowed: one of them")
    if not forms:
        return None
    annotations, images = (
        os.path.expanduser(section.get(key) or "") for key in (forms[0], "images")
    )
    return Source(
        forms[0],
        annotations,
        images,
        tuple(data.get("classes") or ()),
        ignore_difficult=data.get("difficult") == "ignore",
    )


def _of_folder(data: Mapping[str, Any], split: str) -> SplitSource:
    layout = layout_of(data)
    wanted = (data.get(split) or {}).get("split")
    if split == "train":
        files = _chosen(layout, wanted or "train", data, split)
        divided = _given(data, "val") is None and evaluated_split(data, layout) is None
        return SplitSource(files, "train", rule_of(data)) if divided else SplitSource(files)
    name = evaluated_split(data, layout)
    if name is None:
        files = _chosen(layout, (data.get("train") or {}).get("split") or "train", data, "train")
        return SplitSource(files, "val", rule_of(data))
    return SplitSource(_chosen(layout, name, data, split))


def evaluated_split(data: Mapping[str, Any], layout: Layout) -> str | None:
    """The layout's split that is evaluated on; None for a part of train."""
    wanted = (data.get("val") or {}).get("split")
    if wanted:
        return str(wanted)
    if data.get("val_share") is not None or data.get("split_file"):
        return None
    return next((name for name in ("val", "test") if name in layout.splits), None)


def _chosen(layout: Layout, name: str, data: Mapping[str, Any], split: str) -> Source:
    if split == "train" and name == "test":
        raise ValueError("data.train.split=test; the test split is never trained on")
    if name not in layout.splits:
        raise ValueError(
            f"{data['source']} has no split {name} for data.{split}; it is {layout.what} with "
            f"{', '.join(layout.splits)}: choose one with data.{split}.split=…"
        )
    return layout.splits[name]


@functools.lru_cache(maxsize=8)
def _layout(
    folder: str, name: str | None, classes: tuple[str, ...], ignore_difficult: bool
) -> Layout:
    layout = find_layout(folder, name)
    splits = {
        key: source._replace(classes=classes or source.classes, ignore_difficult=ignore_difficult)
        for key, source in layout.splits.items()
    }
    if layout.name == "voc" and not classes:  # a split may lack a class that another has
        names = voc.names_in(splits.values())
        splits = {k: v._replace(classes=tuple(sorted(names))) for k, v in splits.items()}
    return layout._replace(splits=splits)
