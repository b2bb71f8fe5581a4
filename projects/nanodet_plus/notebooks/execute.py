#!/usr/bin/env python
"""Executes the notebooks, each in an empty folder, and keeps what they show: minutes each."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).resolve().parent
TIMEOUT = 900  # seconds of a cell


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("notebooks", nargs="*", type=Path, default=sorted(HERE.glob("*.ipynb")))
    for path in parser.parse_args().notebooks:
        print(f"{path.name} …", flush=True)
        nbformat.write(execute(path), path)


def execute(path: Path) -> nbformat.NotebookNode:
    """The notebook with its outputs. It is run by this Python, whose commands it finds.

    Raises:
        nbclient.exceptions.CellExecutionError: at the first cell that fails.
    """
    notebook = nbformat.read(path, as_version=4)
    root = str(HERE.parents[2])
    settings = {
        "NO_COLOR": "1",
        "PYTHONWARNINGS": "ignore",
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")])),
    }
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(notebook, timeout=TIMEOUT, resources={"metadata": {"path": folder}})
        client.execute(env={**os.environ, **settings})
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times of the day
    return notebook


if __name__ == "__main__":
    main()
