"""What happens when this package or detectron2 is imported.

Importing torch and detectron2 takes seconds, which a command's help should not; and a device has
neither. So nothing heavy is imported with the package: its parts enter detectron2's registries when
those come to be, and where detectron2 is missing, what needs it says so.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

_PACKAGE = "nanodet_d2"
_REGISTRIES = "detectron2.modeling"
_NEEDED = ("torch", "detectron2")
# What runs without them; the command imports what it is asked for.
_ANYWHERE = (
    "__main__",
    "batch",
    "cli",
    "conformance",
    "env",
    "get_detectron2",
    "runtime",
    "serving",
    "tracking",
    "zoo",
)


def missing_sentence() -> str:
    """What is missing of torch and detectron2, and how to get it; empty if nothing is."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if not missing:
        return ""
    torch = "install torch and torchvision, then " if "torch" in missing else ""
    installer = Path(__file__).resolve().parent / "get_detectron2.py"
    return (
        f"all of nanodet_d2 but nanodet_d2.runtime needs {' and '.join(missing)}, not installed "
        f"here: {torch}run `python {installer}`, for no package index carries detectron2"
    )


def prepare() -> None:
    """Arrange all of this; called once, when the package is imported."""
    if missing_sentence():
        sys.meta_path.insert(0, _Refuse())
    elif _REGISTRIES in sys.modules:
        importlib.import_module(f"{_PACKAGE}.compat")
        importlib.import_module(f"{_PACKAGE}.modeling")
    else:
        sys.meta_path.insert(0, _FillRegistries())


class _Refuse(MetaPathFinder):
    """Raises ``ImportError`` for a module of ours that cannot be imported."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        package, _, module = name.partition(".")
        if package == _PACKAGE and module.partition(".")[0] not in _ANYWHERE:
            raise ImportError(missing_sentence(), name=name)
        return None


class _FillRegistries(MetaPathFinder):
    """Supplies what detectron2 needs before it is imported, and fills its registries after."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name == "detectron2":
            importlib.import_module(f"{_PACKAGE}.compat")
        if name != _REGISTRIES:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_fill(module: ModuleType) -> None:
                execute(module)
                importlib.import_module(f"{_PACKAGE}.modeling")

            setattr(spec.loader, "exec_module", execute_and_fill)  # noqa: B010  mypy: a method
        return spec
