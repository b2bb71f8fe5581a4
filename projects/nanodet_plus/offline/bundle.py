#!/usr/bin/env python
"""Packs what a machine without network lacks of this project into one folder of wheels.

    python bundle.py [--python-version 3.12] [--machine x86_64] [--torch 2.11] [--output FOLDER]

That machine has to have the packages in `GIVEN` already. What they need is there with them, and is
in the folder all the same: it is little, and `install.py` leaves out what it finds.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version
from target import Target, asked_by, metadata_of, requirements_of, wheels_in

from nanodet_d2.get_detectron2 import UnavailableError, python_wheel, run, with_build_tools

ROOT = Path(__file__).resolve().parents[3]
OUTPUT = Path("output/offline_bundle")
CONSTRAINTS = ROOT / ".ci" / "constraints.txt"
MANIFEST = "bundle.json"
MAX_BYTES = 60_000_000  # of the folder

GIVEN = ("torch", "torchvision", "timm", "opencv-python-headless", "numpy")
LEFT_OUT = {  # that somebody asks for, and nothing here uses
    "black": "detectron2 prints configs as Python with it",
    "grpcio": "of TensorBoard's viewer",
    "tensorboard-data-server": "of TensorBoard's viewer",
}
SOURCE_ONLY = ("antlr4-python3-runtime", "fvcore", "iopath")  # some versions have no wheel

PACKAGE = ("setup.py", "pyproject.toml", "LICENSE", "README.md", "nanodet_d2", "configs")
CACHES = shutil.ignore_patterns("__pycache__")  # other processes may be writing them
PROGRAMS = Path("projects/nanodet_plus/benchmarks")  # gpu_check.py and what it imports
GUIDE = ROOT / "projects" / "nanodet_plus" / "OFFLINE.md"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    here = "{}.{}".format(*sys.version_info)
    add("--python-version", default=here, metavar="3.X", help=f"of that machine (default: {here})")
    add("--machine", default="x86_64", help="its processor: x86_64 (default) or aarch64")
    add("--torch", metavar="VERSION", help="that is there, to be told now if it is too old")
    add("--output", type=Path, default=OUTPUT, help="folder to write (default: %(default)s)")
    args = parser.parse_args()
    try:
        size = write_bundle(
            args.output, Target(args.python_version, args.machine), torch=args.torch
        )
    except (ValueError, UnavailableError) as error:
        parser.exit(1, f"offline bundle: {error}\n")
    print(f"{args.output}: {size / 1e6:.1f} MB; how it is used: {args.output / 'README.md'}")


def write_bundle(output: Path, target: Target, *, torch: str | None = None) -> int:
    """Write the folder, or replace an earlier one; its bytes are returned.

    Args:
        output: a new folder, or one that this function has made.
        target: the machine that it is for.
        torch: the version that it has, if that is known.

    Raises:
        ValueError: for a folder of somebody else's, a Python or a torch that the project does not
            run with, or what is too much for the folder.
        UnavailableError: if something cannot be fetched or built.
    """
    if output.exists() and not (output / MANIFEST).is_file():
        raise ValueError(f"{output} is there already, and no such bundle; give another --output")
    with tempfile.TemporaryDirectory() as work, tempfile.TemporaryDirectory() as made:
        bundle = Path(made) / "bundle"
        wheels = bundle / "wheels"
        wheels.mkdir(parents=True)
        asked = fill(wheels, target, Path(work), torch=torch)
        found = dict(wheels_in(wheels))
        content = {
            "python": target.python,
            "machine": target.machine,
            "torch": torch,
            "given": GIVEN,
            "asked": {name: str(specifiers) for name, specifiers in sorted(asked.items())},
            "wheels": {name: path.name for name, (path, _) in sorted(found.items())},
        }
        (bundle / MANIFEST).write_text(json.dumps(content, indent=1) + "\n")
        shutil.copy(Path(__file__).with_name("install.py"), bundle)
        shutil.copy(GUIDE, bundle / "README.md")
        shutil.copytree(ROOT / PROGRAMS, bundle / PROGRAMS, ignore=CACHES)
        size = check_size(bundle)
        if output.exists():
            shutil.rmtree(output)
        output.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(bundle, output)
    return size


def fill(wheels: Path, target: Target, work: Path, *, torch: str | None) -> dict[str, SpecifierSet]:
    """Put all wheels into their folder; what they ask for, by name, is returned.

    Args:
        wheels, work: empty folders, the second for what is left behind.

    Raises:
        ValueError, UnavailableError: as ``write_bundle``.
    """
    own = project_wheel(work / "project", wheels)
    check_target(own, target, torch)
    (work / "detectron2").mkdir()
    shutil.copy(python_wheel(work / "detectron2"), wheels)
    (work / "tools").mkdir()
    pip = Pip(wheels, target, work, env=with_build_tools(work / "tools"))
    pip.fetch("pip")  # the other machine's may be too old, or not be there
    pip.build(SOURCE_ONLY)
    while True:
        asked = asked_by(wheels, target)
        have = dict(wheels_in(wheels))
        lacking = set(asked) - set(have) - set(GIVEN) - set(LEFT_OUT)
        if not lacking:
            break
        pip.fetch(*(f"{name}{asked[name]}" for name in sorted(lacking)))
    unfit = [
        f"{name} {version} was taken, but {asked[name]} is asked for"
        for name, (_, version) in have.items()
        if name in asked and not asked[name].contains(version, prereleases=True)
    ]
    if unfit:
        raise UnavailableError("; ".join(unfit))
    return asked


class Pip:
    """pip, which fetches and builds wheels for another machine than this one.

    Args:
        wheels: the folder for them.
        work: a folder for a file of constraints.
        env: its environment variables, by which it finds tools to build with.
    """

    def __init__(self, wheels: Path, target: Target, work: Path, *, env: Mapping[str, str]):
        self.wheels = wheels
        self.target = target
        self.work = work
        self.env = env
        self.constraints = work / "constraints.txt"
        # Without the markers, which pip would look up for the Python that runs it.
        pinned = [Requirement(x) for x in _lines(CONSTRAINTS)]
        texts = [f"{x.name}{x.specifier}\n" for x in pinned if target.wants(x)]
        self.constraints.write_text("".join(texts))

    def fetch(self, *requirements: str) -> None:
        self._run("download", "--dest", self.wheels, *self.target.pip_options(), *requirements)

    def build(self, names: tuple[str, ...]) -> None:
        """Wheels of packages that may come as sources only, which have to be of Python alone."""
        self._run("wheel", "--no-build-isolation", "--wheel-dir", self.wheels, *names)
        for name, (path, _) in wheels_in(self.wheels):
            if name in names and not path.name.endswith("-none-any.whl"):
                raise UnavailableError(f"{path.name} is for this machine alone, and not for others")

    def _run(self, command: str, *arguments: object) -> None:
        options = ["--quiet", "--no-deps", "--disable-pip-version-check", "-c", self.constraints]
        pip = [sys.executable, "-m", "pip", command]
        run([*pip, *options, *arguments], cwd=self.work, env=self.env)


def _lines(file: Path) -> list[str]:
    lines = (line.partition("#")[0].strip() for line in file.read_text().splitlines())
    return [line for line in lines if line]


def project_wheel(source: Path, folder: Path) -> Path:
    """Build the project's own wheel into a folder.

    Args:
        source: a new folder for a copy of the project, because a build leaves folders behind.
    """
    source.mkdir(parents=True, exist_ok=True)
    for name in PACKAGE:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=CACHES)
        else:
            shutil.copy(ROOT / name, source)
    for configs in sorted(ROOT.glob("projects/*/configs")):
        shutil.copytree(configs, source / configs.relative_to(ROOT), ignore=CACHES)
    flags = ["--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", folder.resolve()]
    run([sys.executable, "-m", "pip", "wheel", *flags, source], cwd=source)
    (wheel,) = folder.glob("nanodet_d2-*.whl")
    return wheel


def check_target(own: Path, target: Target, torch: str | None) -> None:
    """Raise ``ValueError`` for a Python or a torch that the project's wheel does not take."""
    metadata = metadata_of(own)
    pythons = SpecifierSet(metadata["Requires-Python"])
    if not pythons.contains(f"{target.python}.99"):
        raise ValueError(f"Python {target.python}; allowed: {pythons}")
    for requirement in requirements_of(own):
        if torch and requirement.name == "torch":
            if not requirement.specifier.contains(Version(torch), prereleases=True):
                raise ValueError(f"torch {torch}; allowed: {requirement.specifier}")


def check_size(bundle: Path) -> int:
    """Bytes of a folder; ``ValueError``, with the largest files, if they are too many."""
    sizes = {path: path.stat().st_size for path in bundle.rglob("*") if path.is_file()}
    total = sum(sizes.values())
    if total > MAX_BYTES:
        largest = sorted(sizes, key=lambda path: sizes[path], reverse=True)[:5]
        named = ", ".join(f"{path.name} {sizes[path] / 1e6:.1f} MB" for path in largest)
        raise ValueError(
            f"{total / 1e6:.1f} MB; allowed: {MAX_BYTES / 1e6:.0f}. The largest: {named}"
        )
    return total


if __name__ == "__main__":
    main()
