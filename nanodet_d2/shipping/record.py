"""What was measured, kept in a json: a call that is repeated goes on where the last one was."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

Facts = Mapping[str, Any]
_OF_SCORES, _OF_TIMES = ("ap",), ("rounds",)


class Record:
    """Entries by name, each with ``file``, ``bytes``, ``ap`` and ``rounds`` (of milliseconds), as
    far as they are known.

    Args:
        path: of the json.
        made_of: all that the files follow from; what is read of others is dropped.
        scored_on: all that AP follows from; likewise.
        timed_on: all that times follow from; likewise.
    """

    def __init__(self, path: Path, *, made_of: Facts, scored_on: Facts, timed_on: Facts):
        self.path = path
        self.about = {"made_of": made_of, "scored_on": scored_on, "timed_on": timed_on}
        self.reference_ap: float | None = None
        self.entries: dict[str, dict[str, Any]] = {}
        self._read()

    def _read(self) -> None:
        if not self.path.is_file():
            return
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            about, entries = dict(content["about"]), dict(content["entries"])
            reference = content["reference_ap"]
        except (ValueError, KeyError, TypeError) as error:
            logger.warning("%s is none of ours (%r): everything is measured anew", self.path, error)
            return
        same = {name: about.get(name) == _plain(facts) for name, facts in self.about.items()}
        if not same["made_of"]:
            logger.warning("%s is of another model or other versions: anew", self.path)
            return
        dropped: tuple[str, ...] = () if same["scored_on"] else _OF_SCORES
        dropped += () if same["timed_on"] else _OF_TIMES
        if dropped:
            logger.info("%s: %s measured anew", self.path, " and ".join(dropped))
        self.reference_ap = reference if same["scored_on"] else None
        self.entries = {
            name: {key: value for key, value in entry.items() if key not in dropped}
            for name, entry in entries.items()
        }

    def entry(self, name: str) -> dict[str, Any]:
        """That of a name, to be filled in."""
        return self.entries.setdefault(name, {})

    def save(self) -> None:
        """Write all of it, so that an interruption leaves the one before or this one."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        content = {
            "about": self.about,
            "reference_ap": self.reference_ap,
            "entries": self.entries,
        }
        aside = self.path.with_name(self.path.name + ".new")
        aside.write_text(json.dumps(content, indent=1), encoding="utf-8")
        os.replace(aside, self.path)


def _plain(facts: Facts) -> Any:
    """As it is read back: with lists for tuples."""
    return json.loads(json.dumps(facts))
