"""Imports point down, and the rooms of the model do not import each other."""

from __future__ import annotations

import ast

# What each room of nanodet_d2 may import from nanodet_d2.
ALLOWED = {
    "layers": set(),
    "modeling/backbone": {"layers", "checkpoint", "modeling.registering"},
    "modeling/neck": {"layers"},
    "modeling/head": {"layers"},
    "modeling/parts.py": {"modeling.head"},
    "modeling/registering.py": set(),
    "modeling/meta_arch": {
        "layers",
        "modeling.head",
        "modeling.parts",
        "modeling.registering",
    },
    "data": set(),
    "checkpoint": set(),
    "zoo.py": {"checkpoint", "config", "modeling"},
    "resolve.py": {"checkpoint", "config", "data", "zoo"},
    "engine": {"checkpoint", "compat", "config", "data", "layers", "modeling.backbone", "resolve"},
    "config.py": set(),
    "compat.py": set(),
    "doctor": {"data", "resolve"},
    "env.py": {"compat", "modeling"},
    "get_detectron2.py": set(),
    "visualization.py": set(),
    "export/__init__.py": set(),
    "export/checks.py": set(),
    "export/metadata.py": {"export.checks"},
    "export/decode_numpy.py": set(),
    "export/runtimes.py": {"export.metadata"},
    "export/network.py": {"checkpoint", "data", "modeling", "resolve", "export.metadata"},
    "demo": {"data", "predictor", "visualization"},
    "benchmark_runtimes": {"predictor", "export"},
    "predictor.py": {"data", "export"},
    "export": {"config", "data", "modeling", "predictor"},
}


def absolute_imports(path, package: str) -> set[str]:
    """Modules of nanodet_d2 that a file imports, without the leading ``nanodet_d2.``."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")
            base = parents[: len(parents) - node.level + 1]
            found.add(".".join([*base, node.module] if node.module else base))
    return {x.removeprefix("nanodet_d2.") for x in found if x.startswith("nanodet_d2.")}


def room_of(relative: str) -> str:
    return max((room for room in ALLOWED if relative.startswith(room)), key=len, default="")


def test_imports_point_down(root):
    package = root / "nanodet_d2"
    checked = 0
    for path in package.rglob("*.py"):
        relative = path.relative_to(package).as_posix()
        room = room_of(relative)
        if relative in ("__init__.py", "modeling/__init__.py"):
            continue  # they gather what is below
        assert room, f"{relative} is in no room of this test: add it to ALLOWED"
        dotted = ".".join(["nanodet_d2", *path.relative_to(package).parent.parts])
        own = room.removesuffix(".py").replace("/", ".")
        for module in absolute_imports(path, dotted):
            inside = module == own or module.startswith(own + ".")
            below = any(module == x or module.startswith(x + ".") for x in ALLOWED[room])
            assert inside or below, f"{relative} imports nanodet_d2.{module}"
            checked += 1
    assert checked > 20


def test_projects_are_not_imported_by_the_package(root):
    for path in (root / "nanodet_d2").rglob("*.py"):
        assert "import projects" not in path.read_text() and "train_net" not in path.read_text()
