"""What a checkpoint says about itself, so that it can be used without the config it is of.

A card is text and numbers: reading one runs nothing. What its config names is code; which of it a
file may name stands in :mod:`.targets`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from .reading import CARD_KEY, read_file

FORMAT_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Card:
    """A checkpoint's description of itself.

    Attributes:
        name: of the run, that of its output folder.
        class_names: in the order of the scores.
        input_size: (height, width) in pixels; None if the config does not tell it.
        config: the resolved config as json, see :func:`.config_text.config_from_json`; empty if
            text could not hold it.
        version: of the nanodet_d2 that trained it.
    """

    name: str
    class_names: tuple[str, ...]
    input_size: tuple[int, int] | None
    config: str
    version: str

    def to_dict(self) -> dict[str, Any]:
        """As it lies in a checkpoint: what ``torch.load(weights_only=True)`` and json take."""
        return {
            "format_version": FORMAT_VERSION,
            "name": self.name,
            "class_names": list(self.class_names),
            "input_size": list(self.input_size) if self.input_size else None,
            "config": self.config,
            "version": self.version,
        }

    @classmethod
    def from_dict(cls, content: Any, source: str) -> Card:
        """Read what :meth:`to_dict` made; ``source`` is named in errors.

        Raises:
            ValueError: for anything else; the message tells which field is wrong.
        """
        version = content.get("format_version") if isinstance(content, Mapping) else None
        if version != FORMAT_VERSION:
            raise ValueError(
                f"the card of {source} has format_version {version!r}; allowed: {FORMAT_VERSION}"
            )
        allowed = {
            "name": ("the name of a file", _is_file_name),
            "class_names": ("a list of names", _are_names),
            "input_size": ("height and width above 0, or none", _is_size_or_none),
            "config": ("text", lambda x: isinstance(x, str)),
            "version": ("text", lambda x: isinstance(x, str)),
        }
        for field, (words, fits) in allowed.items():
            if not fits(content.get(field)):
                raise ValueError(
                    f"the card of {source} has {field} {content.get(field)!r:.80}; allowed: {words}"
                )
        size = content["input_size"]
        return cls(
            name=content["name"],
            class_names=tuple(content["class_names"]),
            input_size=(size[0], size[1]) if size else None,
            config=content["config"],
            version=content["version"],
        )


def read_card(source: str) -> Card | None:
    """The card of a checkpoint; None if it has none, as those of other programs.

    Args:
        source: path or URL of a checkpoint, see ``read_file``.

    Raises:
        FileNotFoundError, ValueError: as ``read_file``, and for a card that is damaged.

    Example:
        >>> from nanodet_d2.checkpoint import read_card
        >>> read_card("output/my_data/model_best.pth").class_names
    """
    content = read_file(source)
    if not isinstance(content, Mapping) or content.get(CARD_KEY) is None:
        return None
    return Card.from_dict(content[CARD_KEY], source)


def _is_file_name(value: Any) -> bool:
    """Exported files are named by it: it must not lead into another folder."""
    if not isinstance(value, str) or value.startswith(".") or "\\" in value:
        return False
    return bool(value) and PurePath(value).name == value


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(x, str) for x in value)


def _is_size_or_none(value: Any) -> bool:
    if value is None:
        return True
    return (
        isinstance(value, list) and len(value) == 2 and all(type(x) is int and x > 0 for x in value)
    )
