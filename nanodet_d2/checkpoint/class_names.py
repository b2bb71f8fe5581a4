"""Which classes of a checkpoint a new model's classes are, by their names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES

COCO_CLASSES = tuple(str(x["name"]) for x in COCO_CATEGORIES if x["isthing"])
# What people call COCO's classes -> COCO's name, singular.
SYNONYMS = {
    "human": "person", "people": "person", "pedestrian": "person", "man": "person",
    "men": "person", "woman": "person", "women": "person",
    "bike": "bicycle", "cyclist": "person", "automobile": "car", "motorbike": "motorcycle",
    "aeroplane": "airplane", "plane": "airplane", "lorry": "truck", "ship": "boat",
    "puppy": "dog", "kitten": "cat", "cattle": "cow", "mug": "cup", "glass": "wine glass",
    "doughnut": "donut", "sofa": "couch", "pottedplant": "potted plant",
    "diningtable": "dining table", "tvmonitor": "tv", "television": "tv", "notebook": "laptop",
    "cellphone": "cell phone", "mobile phone": "cell phone", "smartphone": "cell phone",
    "phone": "cell phone", "fridge": "refrigerator", "ball": "sports ball",
    "hydrant": "fire hydrant", "mice": "mouse", "knives": "knife", "sheep": "sheep",
}  # fmt: skip


class ClassMatch(NamedTuple):
    """How a model's classes go with those of a checkpoint.

    Attributes:
        names: of the model's classes.
        known: names of the checkpoint's; None if it does not tell.
        rows: index of a model's class -> that of the same in the checkpoint.
    """

    names: Sequence[str]
    known: Sequence[str] | None
    rows: Mapping[int, int]

    @property
    def same(self) -> bool:
        """Whether the classes are the same in the same order, as far as names tell."""
        return self.known is None or list(self.names) == list(self.known)

    def __str__(self) -> str:
        """Which classes are taken over, and which are new."""
        known = self.known or ()
        taken = [
            name if name == known[self.rows[i]] else f"{name} (from {known[self.rows[i]]})"
            for i, name in enumerate(self.names)
            if i in self.rows
        ]
        new = [name for i, name in enumerate(self.names) if i not in self.rows]
        return f"taken over: {_short(taken)}; new: {_short(new)}"


def match_classes(names: Sequence[str], known: Sequence[str] | None) -> ClassMatch:
    """Find a model's classes among those of a checkpoint by their names.

    Case, plural, hyphens and underscores do not count, and a short list of synonyms is known. The
    name as it is goes before all that.
    """
    if known is None:
        return ClassMatch(names, None, {})
    exact = {name: i for i, name in reversed(list(enumerate(known)))}
    alike = {_plain(name): i for i, name in reversed(list(enumerate(known)))}
    found = {}
    for i, name in enumerate(names):
        plain = _plain(name)
        index = exact.get(name, alike.get(plain, alike.get(SYNONYMS.get(plain, ""))))
        if index is not None:
            found[i] = index
    return ClassMatch(names, known, found)


def names_of_rows(names: Sequence[str] | None, count: int) -> Sequence[str] | None:
    """Names of a checkpoint's classes: those it tells, else COCO's if there are as many.

    None where they are not known, as of a model whose classes were only counted.
    """
    if names is not None and len(names) == count and names[0] != "class 0":
        return names
    return COCO_CLASSES if names is None and count == len(COCO_CLASSES) else None


def starting_rows(
    count: int, known: int, taken: Mapping[int, int]
) -> dict[int, tuple[int] | tuple[int, int]]:
    """The rows of a checkpoint whose mean each of a model's classes starts from.

    A new class starts as some other one: what its row has in common with all rows (an object, and
    no background) is there at once, and classes that begin far apart are told apart sooner than
    those that begin near zero, or all at one place. They are spread over the rows that are not
    taken. Where these are fewer, the others start half way between two.

    Args:
        count: of the model's classes.
        known: number of the checkpoint's.
        taken: index of a model's class -> that of the same in the checkpoint.

    Returns:
        one row, or two, by index of a class. A class without rows is left to its own start: there
        are no more pairs.
    """
    rows: dict[int, tuple[int] | tuple[int, int]] = {i: (row,) for i, row in taken.items()}
    new = [i for i in range(count) if i not in taken]
    free = [row for row in range(known) if row not in set(taken.values())] or list(range(known))
    for place, i in enumerate(new):
        lap, at = divmod(place, len(free)) if len(new) > len(free) else (0, place)
        if lap == 0:
            step = max(1.0, len(free) / len(new))
            rows[i] = (free[int(at * step)],)
        elif 2 * lap < len(free):  # beyond, the pairs would come again, turned round
            rows[i] = (free[at], free[(at + lap) % len(free)])
    return rows


def _plain(name: str) -> str:
    words = re.sub(r"[\s_-]+", " ", name).strip().casefold()
    if words in SYNONYMS:
        return words
    for ending, singular in (("ies", "y"), ("sses", "ss"), ("ches", "ch"), ("shes", "sh")):
        if words.endswith(ending) and len(words) > len(ending) + 1:
            return words[: -len(ending)] + singular
    if words.endswith("s") and not words.endswith(("ss", "us", "is")) and len(words) > 3:
        return words[:-1]
    return words


def _short(names: Sequence[str], limit: int = 12) -> str:
    tail = f", … ({len(names)} in all)" if len(names) > limit else ""
    return (", ".join(names[:limit]) or "none") + tail
