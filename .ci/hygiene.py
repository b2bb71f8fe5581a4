"""Checks text files for what no diff should bring in: `python .ci/hygiene.py FILE ...`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

MAX_BYTES = 1_000_000
CONFLICT_MARKS = (b"<" * 7 + b" ", b">" * 7 + b" ")


def problems(path: Path) -> Iterator[str]:
    """Yields what is wrong with a file, each with its line number."""
    content = path.read_bytes()
    if len(content) > MAX_BYTES:
        yield f"{path}: {len(content)} bytes, at most {MAX_BYTES} are allowed"
    if content and not content.endswith(b"\n"):
        yield f"{path}: no line end at the end of the file"
    if content.endswith(b"\n\n"):
        yield f"{path}: empty lines at the end of the file"
    for number, line in enumerate(content.split(b"\n"), 1):
        if line.endswith(b"\r"):
            yield f"{path}:{number}: Windows line end"
        elif line != line.rstrip() and path.suffix != ".md":  # two blanks break a line there
            yield f"{path}:{number}: white space at the end of the line"
        if line.startswith(CONFLICT_MARKS):
            yield f"{path}:{number}: mark of a merge conflict"


def main(paths: list[str]) -> int:
    """Prints all problems; returns 1 if there are any."""
    found = [problem for path in paths for problem in problems(Path(path))]
    print("\n".join(found), end="\n" if found else "")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
