"""The page of all config keys, read from the configs and the package; nothing is imported.

A key is described where it is written: by the comment on its line or directly above it, else by the
``Args`` of the docstring of what it is an argument of. What ``L(target)(...)`` may be given and a
config leaves out is listed as well, with the default of the signature.
"""

from __future__ import annotations

import ast
import dataclasses
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

# Calls whose result is a description of a call, to be built later.
LAZY = ("L", "LazyCall", "LazyPartial")
CONFIGS = (
    "train.py",
    "schedule.py",
    "optim.py",
    "data/coco.py",
    "models/nanodet_plus_m.py",
    "models/nanodet_m.py",
)
# Plain sections whose keys are the arguments of a class.
ARGUMENTS_OF = {"train.ema.settings": "ModelEMA"}
# Sections with the keys of another, which has the descriptions.
SAME_AS = {"data.val.": "data.train."}


@dataclasses.dataclass(frozen=True)
class Key:
    """One key: its dotted name, its value or default as written, and what it means.

    A section's value is the name of what it builds, "" for a plain one, which needs no description.
    """

    name: str
    value: str
    description: str
    is_section: bool = False


@dataclasses.dataclass(frozen=True)
class Target:
    """A function or class of the package: its first line, parameters with defaults, ``Args``."""

    summary: str = ""
    parameters: dict[str, str] = dataclasses.field(default_factory=dict)
    descriptions: dict[str, str] = dataclasses.field(default_factory=dict)


def config_keys(path: Path, *, targets: dict[str, Target]) -> list[Key]:
    """All keys of a config file, in its order; a section's keys follow it.

    Args:
        path: of a lazy config.
        targets: by name, as of :func:`package_targets`.
    """
    source = path.read_text(encoding="utf-8")
    comments = _Comments(source)
    keys: list[Key] = []
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            name = statement.targets[0].id
            if not name.startswith("_"):
                keys += _keys_of(statement.value, name, comments=comments, targets=targets)
    described = {x.name: x.description for x in keys}
    for section, other in SAME_AS.items():
        for i, key in enumerate(keys):
            if key.name.startswith(section) and not key.description:
                text = described[key.name.replace(section, other)]
                keys[i] = dataclasses.replace(key, description=text)
    return keys


def package_targets(package: Path) -> dict[str, Target]:
    """The functions and classes at the top of all modules of a package, by their names."""
    classes: dict[str, ast.ClassDef] = {}
    found: dict[str, Target] = {}
    for path in sorted(package.rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                classes[node.name] = node
            elif isinstance(node, ast.FunctionDef):
                text = ast.get_docstring(node) or ""
                found[node.name] = Target(
                    _summary(text), _parameters(node), _arguments_section(text)
                )
    return {**found, **{name: _class_target(name, classes) for name in classes}}


def markdown(root: Path) -> str:
    """The page, as Markdown with a table per config file.

    Args:
        root: the project's folder, with ``configs/common`` and ``nanodet_d2``.
    """
    targets = package_targets(root / "nanodet_d2")
    lines: list[str] = []
    for name in CONFIGS:
        path = root / "configs" / "common" / name
        title = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        lines += [
            f"## `common/{name}`",
            "",
            title,
            "",
            "| key | value | meaning |",
            "|---|---|---|",
        ]
        for key in config_keys(path, targets=targets):
            cells = (f"`{key.name}`", f"`{key.value}`" if key.value else "", key.description)
            lines.append("| " + " | ".join(x.replace("|", "\\|") for x in cells) + " |")
        lines.append("")
    return "\n".join(lines)


def _keys_of(
    node: ast.expr, name: str, *, comments: _Comments, targets: dict[str, Target], line: int = 0
) -> Iterator[Key]:
    """The keys below one value that is ``dict(...)``, ``L(target)(...)`` or a list of these.

    ``line`` is where the value's own key stands, whose comments are not those of keys beside it.
    """
    if isinstance(node, ast.List):
        for i, element in enumerate(node.elts):
            yield from _keys_of(
                element, f"{name}[{i}]", comments=comments, targets=targets, line=line
            )
        return
    if not isinstance(node, ast.Call):
        return
    target = targets.get(_lazy_target(node) or ARGUMENTS_OF.get(name, ""), Target())
    given = {x.arg: x for x in node.keywords if x.arg is not None}
    for key, keyword in given.items():
        own = keyword.lineno
        inner = list(
            _keys_of(keyword.value, f"{name}.{key}", comments=comments, targets=targets, line=own)
        )
        text = comments.of(keyword.value, start=own) if own != line else ""
        text = text or target.descriptions.get(key, "")
        if not text and isinstance(keyword.value, ast.Call):
            text = targets.get(_lazy_target(keyword.value) or "", Target()).summary
        value = _section_name(keyword.value) if inner else _shown(keyword.value)
        yield Key(f"{name}.{key}", value, text, is_section=bool(inner))
        yield from inner
    for key, default in target.parameters.items():
        if key not in given and name not in ARGUMENTS_OF:
            yield Key(f"{name}.{key}", default, target.descriptions.get(key, ""))


def _summary(docstring: str) -> str:
    """The first paragraph of a docstring, on one line."""
    return " ".join(docstring.split("\n\n")[0].split())


def _lazy_target(node: ast.Call) -> str | None:
    """The name that ``L(name)(...)`` calls; None for other calls, as ``dict(...)``."""
    maker = node.func
    if isinstance(maker, ast.Call) and isinstance(maker.func, ast.Name) and maker.func.id in LAZY:
        return ast.unparse(maker.args[0])
    return None


def _section_name(node: ast.expr) -> str:
    return (_lazy_target(node) or "") if isinstance(node, ast.Call) else ""


def _shown(node: ast.expr) -> str:
    return ast.unparse(node).replace("\n", " ")


def _parameters(function: ast.FunctionDef) -> dict[str, str]:
    """Names and defaults; "" where there is none. ``*args`` and ``**arguments`` are left out."""
    arguments = function.args
    positional = [*arguments.posonlyargs, *arguments.args]
    missing = [None] * (len(positional) - len(arguments.defaults))
    pairs = list(zip(positional, [*missing, *arguments.defaults]))
    pairs += list(zip(arguments.kwonlyargs, arguments.kw_defaults))
    return {
        x.arg: "" if default is None else _shown(default) for x, default in pairs if x.arg != "self"
    }


def _class_target(name: str, classes: dict[str, ast.ClassDef]) -> Target:
    """A class's ``__init__``, its own or its nearest base's, described by the docstrings of all."""
    descriptions: dict[str, str] = {}
    parameters: dict[str, str] | None = None
    waiting, seen = [name], set()
    while waiting:
        node = classes[waiting.pop(0)]
        seen.add(node.name)
        init = next(
            (x for x in node.body if isinstance(x, ast.FunctionDef) and x.name == "__init__"), None
        )
        texts = [ast.get_docstring(node) or "", (ast.get_docstring(init) or "") if init else ""]
        for text in texts:
            descriptions = {**_arguments_section(text), **descriptions}
        if init is not None and parameters is None:
            parameters = _parameters(init)
        bases = [x.id for x in node.bases if isinstance(x, ast.Name)]
        waiting += [x for x in bases if x in classes and x not in seen]
    return Target(_summary(ast.get_docstring(classes[name]) or ""), parameters or {}, descriptions)


_ENTRY = re.compile(r"(?P<names>\*{0,2}\w+(?:, \*{0,2}\w+)*): (?P<text>.*)")


def _arguments_section(docstring: str) -> dict[str, str]:
    """What the ``Args`` of a Google-style docstring say, by name; ``a, b: text`` is for both."""
    found: dict[str, str] = {}
    names: list[str] = []
    inside = False
    for line in docstring.splitlines():
        if line.strip() == "Args:":
            inside = True
        elif inside and line and not line.startswith(" "):
            inside = False
        elif inside and line.strip():
            entry = _ENTRY.match(line[4:])
            if entry and not line.startswith("     "):
                names = [x.strip(" *") for x in entry["names"].split(",")]
                found.update(dict.fromkeys(names, entry["text"].strip()))
            else:
                found.update({x: f"{found[x]} {line.strip()}" for x in names})
    # What is "as of" another class is described there, which is a base.
    return {name: text for name, text in found.items() if not text.startswith("as of ")}


class _Comments:
    """The comments of a source, by line; those on lines of their own are told apart."""

    def __init__(self, source: str):
        self.beside: dict[int, str] = {}
        self.alone: dict[int, str] = {}
        lines = source.splitlines()
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type == tokenize.COMMENT:
                line = token.start[0]
                alone = not lines[line - 1][: token.start[1]].strip()
                (self.alone if alone else self.beside)[line] = token.string.lstrip("# ")

    def of(self, value: ast.expr, *, start: int) -> str:
        """What stands above line ``start`` and beside the first or last line of ``value``."""
        above: list[str] = []
        line = start - 1
        while line in self.alone:
            above.insert(0, self.alone[line])
            line -= 1
        last = value.end_lineno or start
        beside = self.beside.get(start) or (
            "" if isinstance(value, ast.Call) else self.beside.get(last, "")
        )
        return " ".join([*above, *([beside] if beside else [])])
