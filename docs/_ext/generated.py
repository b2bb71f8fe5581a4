"""Writes the pages that are made from the project, before Sphinx reads any."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import config_reference
import project_pages
from sphinx.ext.autodoc.mock import undecorate
from sphinx.util import inspect

HEAD = """\
# All config keys

A key is set in a config or on the command line, as `train.minutes=10`. Keys that a config does not
name, but that what it builds can be given, are listed with their defaults and are set in the same
way. `${…}` takes over the value of another key.

"""


def write_pages(app: Any) -> None:
    """The reference of config keys and the project's own pages, into ``docs/generated``."""
    docs = Path(app.srcdir)
    root = docs.parent
    pages = project_pages.pages(root)
    pages["generated/config_keys"] = HEAD + config_reference.markdown(root)
    (docs / "generated").mkdir(exist_ok=True)
    for name, text in pages.items():
        page = docs / f"{name}.md"
        if not page.exists() or page.read_text(encoding="utf-8") != text:
            page.write_text(text, encoding="utf-8")


def adapt_links(app: Any, name: str, source: list[str]) -> None:
    """The site's links in a page that is written by hand."""
    if not name.startswith("generated/"):
        root = Path(app.srcdir).parent
        source[0] = project_pages.adapt_links(
            source[0], root=root, source=f"docs/{name}.md", page=name
        )


def show_arguments(
    app: Any, what: str, name: str, obj: Any, options: Any, signature: str, returned: str
) -> tuple[str, str] | None:
    """A class's own arguments in place of those of the stand-in that it is derived from."""
    if what != "class" or not (signature or "").startswith("(*args") or "__init__" not in vars(obj):
        return None
    own = inspect.signature(undecorate(obj.__init__), bound_method=True)
    return inspect.stringify_signature(own, show_return_annotation=False), returned


def setup(app: Any) -> dict[str, bool]:
    app.connect("builder-inited", write_pages)
    app.connect("source-read", adapt_links)
    app.connect("autodoc-process-signature", show_arguments)
    return {"parallel_read_safe": True}
