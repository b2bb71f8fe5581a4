"""NanoDet-Plus as a first-class citizen of detectron2."""

from pathlib import Path

__version__ = "0.1.0"

try:
    from . import (
        compat,  # noqa: F401  before anything of detectron2
        modeling,  # noqa: F401  fills detectron2's registries
    )
except ModuleNotFoundError as error:
    if error.name != "detectron2":
        raise
    _installer = Path(__file__).resolve().parent / "get_detectron2.py"
    raise ImportError(
        "nanodet_d2 needs detectron2, which no package index carries: "
        f"run `python {_installer}` with this interpreter to install it"
    ) from error
