"""Writes the pages that are made from the project, before Sphinx reads any."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import config_reference

HEAD = """\
# All config keys

A key is set in a config or on the command line, as `train.minutes=10`. Keys that a config does not
name, but that what it builds can be given, are listed with their defaults and are set in the same
way. `${…}` takes over the value of another key.

"""


def write_pages(app: Any) -> None:
    """The reference of config keys, into ``docs/generated``."""
    folder = Path(app.srcdir) / "generated"
    folder.mkdir(exist_ok=True)
    text = HEAD + config_reference.markdown(Path(app.srcdir).parent)
    page = folder / "config_keys.md"
    if not page.exists() or page.read_text(encoding="utf-8") != text:
        page.write_text(text, encoding="utf-8")


def setup(app: Any) -> dict[str, bool]:
    app.connect("builder-inited", write_pages)
    return {"parallel_read_safe": True}
