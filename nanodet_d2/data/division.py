"""A part of a data set's images for validation, where its layout has no split for it."""

from __future__ import annotations

import collections
import json
import logging
import random
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .duplicates import look_alikes, looks

logger = logging.getLogger(__name__)

SHARE = 0.2  # of the images, where none is asked for


class Rule(NamedTuple):
    """How images are divided; hashable.

    Attributes:
        share: of the images that are for validation, 0 to 1.
        seed: another one gives another division.
        group_by: regular expression; images for which its first group (all of it, if there is
            none) is the same stay together. Empty for none.
        file: that lists the division, in place of all this.
    """

    share: float = SHARE
    seed: int = 0
    group_by: str = ""
    file: str = ""


def check_rule(rule: Rule) -> None:
    """Raise ``ValueError`` for a rule that cannot be followed."""
    if not 0 < rule.share < 1:
        raise ValueError(f"data.val_share {rule.share:g}; allowed: above 0, below 1")
    try:
        re.compile(rule.group_by)
    except re.error as error:
        raise ValueError(
            f"data.group_by {rule.group_by!r} is no regular expression: {error}"
        ) from error


def val_names(content: Mapping[str, Any], images: str, rule: Rule) -> set[str]:
    """Names of the images of a COCO content that are for validation; the others are to train on.

    Args:
        content: of the whole.
        images: folder that the names are relative to.
        rule: how to divide.

    Raises:
        ValueError: if a side would be empty, or the file does not fit the images.
    """
    check_rule(rule)
    names = sorted(str(x["file_name"]) for x in content["images"])
    if rule.file:
        return _listed(rule.file, names)
    classes = _classes_of(content)
    groups = _groups(names, images, rule)
    chosen = choose_groups([[classes[name] for name in group] for group in groups], rule)
    return {name for i in chosen for name in groups[i]}


def choose_groups(groups: Sequence[Sequence[Collection[Any]]], rule: Rule) -> set[int]:
    """Groups of images for validation, so that each class has its share there.

    The rarest class that is still to be divided goes first, as in iterative stratification
    (Sechidis et al. 2011, "On the Stratification of Multi-Label Data", section 3), with whole
    groups in place of images. Every class keeps an image to be learnt from.

    Args:
        groups: the classes of each image of each group.
        rule: share and seed.

    Returns:
        indices of groups.

    Raises:
        ValueError: if a side would be empty.
    """
    counts = [
        collections.Counter(c for image in group for c in set(image) or {None}) for group in groups
    ]
    val = _Validation([len(group) for group in groups], counts, rule.share)
    order = list(range(len(groups)))
    random.Random(rule.seed).shuffle(order)
    having: dict[Any, list[int]] = collections.defaultdict(list)
    for i in order:
        for c in counts[i]:
            having[c].append(i)
    left = set(order)
    for rarest in sorted(having, key=lambda c: (val.left_to_train[c], str(c))):
        for i in (x for x in having[rarest] if x in left):
            left.discard(i)
            # Where that brings the class closer to its share.
            if counts[i][rarest] <= 2 * val.wanted[rarest]:
                val.take(i)
    # Of many rare classes, each may round to none. Then others make the share up.
    for i in sorted(set(order) - val.chosen, key=lambda i: (-val.lack(i), order[i])):
        val.take(i)
    if not val.chosen or len(val.chosen) == len(groups):
        raise ValueError(
            f"{sum(map(len, groups))} images in {len(groups)} groups cannot be divided by "
            f"data.val_share={rule.share:g}: give data.val, or another share"
        )
    return val.chosen


class _Validation:
    """The side of validation, as groups are taken for it.

    Args:
        sizes: of the groups, in images.
        counts: of each group, the images of each class.
        share: of all images that it is to have.
    """

    def __init__(self, sizes: Sequence[int], counts: Sequence[Mapping[Any, int]], share: float):
        self.chosen: set[int] = set()
        self.left_to_train: collections.Counter[Any] = collections.Counter()
        for count in counts:
            self.left_to_train.update(count)
        self.wanted = {c: share * n for c, n in self.left_to_train.items()}
        self._room = share * sum(sizes)
        self._sizes, self._counts = sizes, counts

    def take(self, i: int) -> None:
        """Take a group if there is room, and its classes keep an image to be learnt from."""
        count = self._counts[i]
        if self._sizes[i] > 2 * self._room or any(
            n >= self.left_to_train[c] for c, n in count.items()
        ):
            return
        self.chosen.add(i)
        self._room -= self._sizes[i]
        for c, n in count.items():
            self.wanted[c] -= n
            self.left_to_train[c] -= n

    def lack(self, i: int) -> float:
        """Images that a group's classes lack of their shares, on average."""
        count = self._counts[i]
        return sum(self.wanted[c] * n for c, n in count.items()) / sum(count.values())


def _classes_of(content: Mapping[str, Any]) -> dict[str, set[str]]:
    """Image name -> classes of its boxes."""
    classes = {x["id"]: str(x["name"]) for x in content["categories"]}
    names = {x["id"]: str(x["file_name"]) for x in content["images"]}
    found: dict[str, set[str]] = {name: set() for name in names.values()}
    for annotation in content["annotations"]:
        try:
            found[names[annotation["image_id"]]].add(classes[annotation["category_id"]])
        except (KeyError, TypeError):
            continue  # what is wrong with it is told where annotations are read
    return found


def _groups(names: Sequence[str], images: str, rule: Rule) -> list[list[str]]:
    """Images that have to stay together: of one video, or that look the same."""
    parent = list(range(len(names)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first: dict[str, int] = {}
    for i, name in enumerate(names):
        found = re.search(rule.group_by, name) if rule.group_by else None
        if found:
            key = found.group(1 if found.re.groups else 0)
            parent[root(i)] = root(first.setdefault(key, i))
    known = looks([str(Path(images, name)) for name in names], what="looking for copies of images")
    for alike in look_alikes(known):
        if len(alike) > max(2, 2 * rule.share * len(names)):  # would not fit into validation
            logger.warning(
                "%d of %d images look the same, as %s and %s; they are divided all the same. "
                "data.group_by keeps the images of one video together",
                len(alike),
                len(names),
                *(names[i] for i in alike[:2]),
            )
            continue
        for i in alike[1:]:
            parent[root(i)] = root(alike[0])
    groups: dict[int, list[str]] = collections.defaultdict(list)
    for i, name in enumerate(names):
        groups[root(i)].append(name)
    return list(groups.values())


def write_division(path: str | Path, train: Collection[str], val: Collection[str]) -> None:
    """Write a file that ``data.split_file`` takes."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    content = {"train": sorted(train), "val": sorted(val)}
    Path(path).write_text(json.dumps(content, indent=0, ensure_ascii=False), encoding="utf-8")


def _listed(path: str, names: Sequence[str]) -> set[str]:
    """The images for validation of a file; every image has to be in one of its lists."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        train, val = (set(content[key]) for key in ("train", "val"))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"data.split_file={path} not found") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"data.split_file={path} is no division: needed is json of the lists train and val"
        ) from error
    unknown = [name for name in names if name not in train and name not in val]
    empty = next((key for key, x in (("val", val), ("train", train)) if not x & set(names)), None)
    if unknown or empty or train & val:
        what = f"{len(unknown)} of the {len(names)} images are in neither list, as {unknown[:1]}"
        if train & val:
            what = f"{len(train & val)} images are in both lists"
        elif not unknown:
            what = f"no image of the data set is in its list {empty}"
        raise ValueError(f"data.split_file={path} does not fit the data set: {what}")
    return val


def keep_part(content: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """A COCO content with only some of its images, by name, and their annotations."""
    images = [x for x in content["images"] if x["file_name"] in names]
    ids = {x["id"] for x in images}
    annotations = [
        x for x in content["annotations"] if not isinstance(x, Mapping) or x.get("image_id") in ids
    ]
    return {**content, "images": images, "annotations": annotations}
