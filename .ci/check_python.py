"""Tells in one sentence what the interpreter that runs this lacks; installs nothing.

`make ... PYTHON=/path/to/python` uses an environment as it is, so this is all it may do to it.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import sys

MIN_PYTHON = (3, 9)
# import name -> name for pip
PACKAGES = {
    "cloudpickle": "cloudpickle",
    "cv2": "'opencv-python-headless<5'",
    "fvcore": "fvcore",
    "hydra": "hydra-core",
    "iopath": "iopath",
    "matplotlib": "matplotlib",
    "numpy": "numpy",
    "omegaconf": "'omegaconf<2.4'",
    "PIL": "pillow",
    "pycocotools": "pycocotools",
    "tensorboard": "tensorboard",
    "timm": "timm",
    "torch": "torch",
    "torchvision": "torchvision",
    "tqdm": "tqdm",
    "yaml": "pyyaml",
}
TOOLS = {
    "codespell_lib": "codespell",
    "coverage": "coverage",
    "furo": "furo",
    "hypothesis": "hypothesis",
    "mypy": "mypy",
    "myst_parser": "myst-parser",
    "proselint": "proselint",
    "pytest": "pytest",
    "ruff": "ruff",
    "sphinx": "sphinx",
    "xdist": "pytest-xdist",
}
# What uses these says so itself, or is skipped; all else runs without them.
OPTIONAL = ("hypothesis", "timm")


def complaint(tools: list[str], *, only: bool = False) -> tuple[str, bool]:
    """Finds out what is missing.

    Args:
        tools: the development tools that the caller is going to use.
        only: whether these are all that it uses, so that the package need not run.

    Returns:
        The sentence, empty if all is there, and whether one can go on nevertheless.
    """
    python = shlex.quote(os.environ.get("PYTHON") or sys.executable)
    if sys.version_info < MIN_PYTHON:
        wanted = ".".join(map(str, MIN_PYTHON))
        found = sys.version.split()[0]
        return f"{python} is Python {found}, but {wanted} or later is required.", False
    wanted = {**({} if only else PACKAGES), **{tool: TOOLS[tool] for tool in tools}}
    missing = [name for name in wanted if importlib.util.find_spec(name) is None]
    advice = []
    if missing:
        advice.append(f"`{python} -m pip install {' '.join(wanted[name] for name in missing)}`")
    if not only and importlib.util.find_spec("detectron2") is None:
        missing.append("detectron2")
        advice.append(f"`{python} nanodet_d2/get_detectron2.py`")
    if not missing:
        return "", True
    sentence = (
        f"{python} lacks {', '.join(missing)}: get them with {' and then '.join(advice)}, or leave "
        "out PYTHON= to have an environment made in .venv."
    )
    usable = set(missing) <= set(OPTIONAL)
    return sentence + " Going on without." * usable, usable


def main(tools: list[str]) -> int:
    """Returns 1, after the sentence, if something is missing that one cannot do without.

    ``--only`` before the tools: nothing else is needed.
    """
    only = tools[:1] == ["--only"]
    tools = tools[only:]
    unknown = sorted(set(tools) - set(TOOLS))
    if unknown:
        raise ValueError(f"unknown tools {unknown}; allowed are {list(TOOLS)}")
    sentence, usable = complaint(tools, only=only)
    if sentence:
        print(sentence, file=sys.stderr)
    return int(not usable)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
