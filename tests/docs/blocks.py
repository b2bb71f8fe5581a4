"""The blocks of code in Markdown pages, and the commands in them."""

from __future__ import annotations

import dataclasses
import re
import shlex
from pathlib import Path

# A line before a block that is not run: why.
NOT_RUN = re.compile(r"<!-- not run: (?P<reason>.+) -->")
FENCE = re.compile(r"```(?P<language>\S*)( .*)?$")
# What Sphinx makes of itself, as tables of contents, and what is no code.
DIRECTIVE = "{"


@dataclasses.dataclass(frozen=True)
class Block:
    """A block of code: its page, the line of its first fence, language, text, and why not run."""

    page: Path
    line: int
    language: str
    text: str
    reason: str | None = None

    def commands(self) -> list[list[str]]:
        """The words of each command of a shell block; comments are left out, lines joined."""
        lines = self.text.replace("\\\n", " ").splitlines()
        words = [shlex.split(line, comments=True) for line in lines]
        return [x for x in words if x]


def find_blocks(page: Path) -> list[Block]:
    """The blocks of a page, in order.

    Raises:
        ValueError: for a block that is not closed, or a reason that no block follows.
    """
    blocks: list[Block] = []
    reason = opened = None
    text: list[str] = []
    language = ""
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if opened is not None:
            if line == "```":
                if not language.startswith(DIRECTIVE):
                    content = "\n".join(text)
                    blocks.append(Block(page, opened, language, content, reason))
                opened = reason = None
            else:
                text.append(line)
        elif fence := FENCE.match(line):
            opened, language, text = number, fence["language"], []
        elif marker := NOT_RUN.fullmatch(line.strip()):
            reason = marker["reason"]
        elif reason and line.strip():
            raise ValueError(f"{page}, line {number}: a reason not to run, and no block after it")
    if opened is not None or reason is not None:
        raise ValueError(f"{page}: a block that is not closed, or a reason that no block follows")
    return blocks
