"""What detectron2 0.6 needs before it is imported, and what a detectron2 has been compiled with.

detectron2 0.6 was written for Pillow < 10 and NumPy < 1.24 and spells names that these dropped.
Importing this module supplies them, but only where the installed detectron2 really spells them: its
main branch does not, nor does what `get_detectron2.py` installs, and both say they are 0.6.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import re
import sys
from pathlib import Path
from typing import Optional

logger = logging.getLogger(__name__)

# Where each dropped name is met first: Pillow's while detectron2.data is imported, NumPy's when a
# data set is read.
_PILLOW_MARK = ("data/transforms/transform.py", re.compile(r"\bImage\.LINEAR\b"))
_NUMPY_MARK = ("data/build.py", re.compile(r"\bnp\.int\b"))
_NUMPY_ALIASES = (("bool", bool), ("float", float), ("int", int), ("str", str))


def _detectron2_folder() -> Optional[Path]:
    """Returns the folder of the detectron2 an import would find, without importing it."""
    module = sys.modules.get("detectron2")
    if module is not None:
        return Path(next(iter(module.__path__)))
    spec = importlib.util.find_spec("detectron2")
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def _spells(folder: Path, mark: tuple[str, re.Pattern[str]]) -> bool:
    path = folder / mark[0]
    return path.is_file() and bool(mark[1].search(path.read_text(encoding="utf-8")))


def prepare_for_detectron2() -> list[str]:
    """Supplies the names that the installed detectron2 needs and Pillow and NumPy lack.

    Returns:
        The names supplied by this call, e.g. ``["PIL.Image.LINEAR", "numpy.int"]``; none when
        called again.
    """
    folder = _detectron2_folder()
    supplied = []
    if folder is not None and _spells(folder, _PILLOW_MARK):
        from PIL import Image

        if not hasattr(Image, "LINEAR"):
            # They were two names of one filter. Pillow's types know neither.
            Image.LINEAR = Image.BILINEAR  # type: ignore[attr-defined]
            supplied.append("PIL.Image.LINEAR")
    if folder is not None and _spells(folder, _NUMPY_MARK):
        import numpy as np

        for name, builtin in _NUMPY_ALIASES:
            # vars: NumPy 1.20 to 1.23 still answer, but with a warning each time
            if name not in vars(np):
                setattr(np, name, builtin)
                supplied.append(f"numpy.{name}")
    if supplied:
        logger.debug("supplied for the detectron2 in %s: %s", folder, ", ".join(supplied))
    return supplied


@functools.cache
def has_compiled_op(name: str) -> bool:
    """Tells whether detectron2's compiled extension is there and has this operator.

    Args:
        name: of an operator in ``detectron2._C``, e.g. ``"COCOevalEvaluateImages"``, which
            COCOEvaluator needs for its ``use_fast_impl``.
    """
    try:
        from detectron2 import _C
    except ImportError:  # not compiled at all, or against another torch
        return False
    # A stand-in written in Python has no operators, whatever it answers.
    compiled = not str(getattr(_C, "__file__", "") or "").endswith((".py", ".pyc"))
    return compiled and hasattr(_C, name)


prepare_for_detectron2()
