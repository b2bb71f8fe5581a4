"""NanoDet-Plus as a first-class citizen of detectron2.

``nanodet_d2.runtime`` needs neither torch nor detectron2; everything else does.
"""

from __future__ import annotations

import importlib
from typing import Any

from .importing import prepare

__version__ = "0.1.0"

_LATE = {"Detector": "predictor"}  # name -> its module, imported when the name is used


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LATE[name]}"), name)


prepare()
