"""Imports point down, siblings do not import each other, and no circle is left."""

from __future__ import annotations

import ast
import graphlib
from pathlib import Path

import pytest

PACKAGE = "nanodet_d2"
# The rooms from top to bottom. What stands in a lower line may be imported, and nothing else.
FLOORS = (
    ("__main__",),
    ("cli",),
    ("shipping", "batch", "serving"),
    ("benchmark",),
    ("predictor",),
    ("export", "doctor", "env"),
    ("engine",),
    ("resolve",),
    ("zoo",),
    ("modeling", "data"),
    ("checkpoint", "layers", "config", "compat", "conformance", "tracking", "sahi_model"),
    ("runtime",),
    ("importing", "get_detectron2"),
)
# The same within the model.
MODEL = (("meta_arch",), ("parts",), ("backbone", "neck", "head"), ("registering",))
# Rooms that may import even less.
ONLY = {
    "modeling.backbone": {"layers", "checkpoint", "modeling.registering"},
    "modeling.neck": {"layers"},
    "modeling.head": {"layers"},
    "modeling.parts": {"modeling.head"},
    "modeling.registering": set(),
    "data": {"runtime"},
    "checkpoint": {"runtime"},
    "batch": {"conformance", "runtime"},
    "conformance": {"runtime"},
    "tracking": {"runtime"},
    "sahi_model": {"runtime"},
    "layers": set(),
    "config": set(),
    "compat": set(),
    "importing": set(),
    "get_detectron2": set(),
}


def modules(root: Path) -> dict[str, Path]:
    """All modules of the package with their files."""
    found = {}
    for path in sorted((root / PACKAGE).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def names(path: Path, package: str) -> set[str]:
    """What a file of a package imports: at its top, inside functions, or for types. What
    ``from a import b`` names may be a module ``a.b``, or something in ``a``."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: 1 - node.level or None] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            found.update(f"{base}.{alias.name}" for alias in node.names)
    return found


def imports(name: str, path: Path, known: dict[str, Path]) -> set[str]:
    """Modules of ``known`` that a module imports."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = {x if x in known else x.rpartition(".")[0] for x in names(path, package)}
    return {x for x in found if x in known and x != name}


@pytest.fixture(scope="module")
def graph(root) -> dict[str, set[str]]:
    known = modules(root)
    return {name: imports(name, path, known) for name, path in known.items()}


def room(module: str) -> str:
    """A folder or a file of the package, "" for itself; of the model a room within it."""
    parts = module.split(".")[1:]
    return ".".join(parts[:2] if parts[:1] == ["modeling"] else parts[:1])


def may_import(importing: str, imported: str) -> bool:
    """Whether a room may import another one."""
    if importing == imported or imported == "":
        return importing != "runtime" or imported == "runtime"
    if importing in ("", "modeling"):  # they gather what is below
        return imported == "importing" if importing == "" else imported.startswith("modeling.")
    if importing in ONLY:
        return imported in ONLY[importing]
    if importing.startswith("modeling.") and imported.startswith("modeling."):
        return floor(importing.split(".")[1], MODEL) < floor(imported.split(".")[1], MODEL)
    return floor(importing.split(".")[0], FLOORS) < floor(imported.split(".")[0], FLOORS)


def floor(name: str, floors: tuple[tuple[str, ...], ...]) -> int:
    (number,) = [i for i, rooms in enumerate(floors) if name in rooms]
    return number


def test_each_room_has_its_floor(graph):
    rooms = {name for name in map(room, graph) if name not in ("", "modeling")}
    named = {x for line in FLOORS for x in line if x != "modeling"}
    named |= {f"modeling.{x}" for line in MODEL for x in line}
    assert rooms == named, "FLOORS and MODEL of this test are what is there"
    assert ONLY.keys() <= named


def test_imports_point_down(graph):
    wrong = [
        f"{name} imports {other}"
        for name, others in graph.items()
        for other in sorted(others)
        if not may_import(room(name), room(other))
    ]
    assert not wrong
    assert sum(map(len, graph.values())) > 200


def test_there_is_no_circle(graph):
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_circles_and_wrong_directions_are_seen(tmp_path):
    """Of any kind of import; else the tests above would see nothing."""
    files = {
        "__init__.py": "",
        "data/__init__.py": "",
        "data/a.py": "def f():\n    from nanodet_d2 import engine\n",
        "engine/__init__.py": "from .b import x\n",
        "engine/b.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n"
        "    from ..data import a\nimport nanodet_d2.runtime.c\n",
        "runtime/__init__.py": "",
        "runtime/c.py": "from .. import __version__\nfrom . import d as other\n",
        "runtime/d.py": "import os\n",
    }
    for name, text in files.items():
        path = tmp_path / PACKAGE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    known = modules(tmp_path)
    graph = {name.partition(".")[2]: imports(name, path, known) for name, path in known.items()}
    assert graph == {
        "": set(),
        "data": set(),
        "data.a": {"nanodet_d2.engine"},
        "engine": {"nanodet_d2.engine.b"},
        "engine.b": {"nanodet_d2.data.a", "nanodet_d2.runtime.c"},
        "runtime": set(),
        "runtime.c": {"nanodet_d2", "nanodet_d2.runtime.d"},
        "runtime.d": set(),
    }
    assert not may_import("data", "engine") and may_import("engine", "data")
    assert not may_import("runtime", "") and not may_import("data", "modeling.head")
    assert not may_import("modeling.neck", "modeling.head") and not may_import("doctor", "export")
    whole = {f"{PACKAGE}.{k}".rstrip("."): v for k, v in graph.items()}
    with pytest.raises(graphlib.CycleError):
        graphlib.TopologicalSorter(whole).prepare()


def test_projects_are_not_imported_by_the_package(root):
    for name, path in modules(root).items():
        tops = {x.partition(".")[0] for x in names(path, name)}
        assert not tops & {"projects", "configs", "train_net", "tests"}
