"""NanoDet-Plus as a first-class citizen of detectron2."""

import sys
from pathlib import Path

__version__ = "0.1.0"
WITHOUT_DETECTRON2 = ""  # why nothing works, for the one module that runs all the same


def _is_asked_by_env() -> bool:
    """Whether this is for ``python -m nanodet_d2.env``, which tells what an environment lacks."""
    # sys.argv[0] is "-m" until Python has found the module to run; orig_argv is of Python 3.10.
    return sys.argv[:1] == ["-m"] and "nanodet_d2.env" in getattr(sys, "orig_argv", ())


try:
    from . import (
        compat,  # noqa: F401  before anything of detectron2
        modeling,  # noqa: F401  fills detectron2's registries
    )
except ModuleNotFoundError as error:
    if error.name != "detectron2":
        raise
    _installer = Path(__file__).resolve().parent / "get_detectron2.py"
    WITHOUT_DETECTRON2 = (
        "nanodet_d2 needs detectron2, which no package index carries: "
        f"run `python {_installer}` with this interpreter to install it"
    )
    if not _is_asked_by_env():
        raise ImportError(WITHOUT_DETECTRON2) from error
