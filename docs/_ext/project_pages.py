"""Markdown files of the project as pages of the site, and links between them.

Links are written so that they work where the files lie, in an editor or on a code host. The site
has no such folders: a link to a file that is a page becomes one to the page, one to any other file
the file's name. A link to a file that is not there is an error.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

# File of the project -> page of the site, below docs/.
PAGES = {
    "README.md": "index",
    "CHANGELOG.md": "generated/changelog",
    "projects/nanodet_plus/README.md": "generated/measured",
    "projects/nanodet_plus/ANNOTATIONS.md": "generated/annotations",
    "projects/nanodet_plus/BATCH.md": "generated/batch",
    "projects/nanodet_plus/SERVING.md": "generated/serving",
    "projects/nanodet_plus/OFFLINE.md": "generated/offline",
    "projects/nanodet_plus/BACKBONES.md": "generated/backbones",
    "projects/nanodet_plus/DISTRIBUTED.md": "generated/distributed",
    "projects/nanodet_plus/OTHER_TRAINERS.md": "generated/other_trainers",
    "projects/nanodet_plus/cpp/README.md": "generated/cpp",
    "projects/nanodet/README.md": "generated/older_models",
}
LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^][]*)\]\((?P<path>[^)#\s]*)(?P<anchor>#[^)\s]*)?\)")


def adapt_links(text: str, *, root: Path, source: str, page: str) -> str:
    """The Markdown of a file with the links that the site has.

    Args:
        text: what the file holds.
        root: the project's folder.
        source: the file, relative to it.
        page: the page it becomes, relative to ``docs``, without suffix.

    Raises:
        ValueError: for a link to a file that is not there.
    """

    def adapt(match: re.Match) -> str:
        path, anchor = match["path"], match["anchor"] or ""
        if not path or ":" in path:
            return match[0]
        target = os.path.normpath(os.path.join(os.path.dirname(source), path))
        # What the site's build writes need not be there yet.
        if not (root / target).exists() and not target.startswith("docs/generated/"):
            raise ValueError(f"{source}: a link to {path}, which is not there")
        if match["image"]:
            return f"![{match['text']}]({_relative('../' + target, page)})"
        if target in PAGES:
            return f"[{match['text']}]({_relative(PAGES[target] + '.md', page)}{anchor})"
        if target.startswith("docs/") and target.endswith(".md"):
            return f"[{match['text']}]({_relative(target[len('docs/') :], page)}{anchor})"
        name = os.path.basename(target)
        return match["text"] if name in match["text"] else f"{match['text']} (`{target}`)"

    lines = text.splitlines()
    is_code = False
    for i, line in enumerate(lines):
        if line.startswith("```"):
            is_code = not is_code
        elif not is_code:
            lines[i] = LINK.sub(adapt, line)
    return "\n".join(lines) + "\n"


def pages(root: Path) -> dict[str, str]:
    """Page, relative to ``docs`` and without suffix -> its Markdown, of all that are not there."""
    return {
        page: adapt_links(
            (root / source).read_text(encoding="utf-8"), root=root, source=source, page=page
        )
        for source, page in PAGES.items()
        if page.startswith("generated/")
    }


def _relative(path: str, page: str) -> str:
    return os.path.relpath(path, os.path.dirname(page) or ".")
