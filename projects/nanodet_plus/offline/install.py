#!/usr/bin/env python3
"""Puts the wheels of this folder beside the packages of the Python that runs it; no network.

    python3 install.py [--into FOLDER]

Nothing that is there already is changed. What is missing, or of a version that does not fit, goes
into the folder `site`; the command `python`, written beside it, is that Python with these packages.
Uses the standard library and this folder's pip, and so works where there is no pip.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Callable, NamedTuple, Optional

HERE = Path(__file__).resolve().parent
PIP = "pip"
# Other names under which a package's import may be there.
ALIASES = {
    "opencv-python-headless": (
        "opencv-python",
        "opencv-contrib-python",
        "opencv-contrib-python-headless",
    )
}
LAUNCHER = """#!/bin/sh
# The Python that ran install.py, with the packages in `site` beside its own.
export PYTHONPATH="${{PYTHONPATH:+$PYTHONPATH:}}"{site}
exec {python} "$@"
"""


class Plan(NamedTuple):
    """What is to be done."""

    files: list[str]  # wheels to install
    notes: list[str]  # packages that are there and do not fit; ours come first
    faults: list[str]  # what this folder cannot help with


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--into", type=Path, default=HERE, help="folder for `site` and `python`, if not this one"
    )
    into = parser.parse_args().into.resolve()
    site = into / "site"
    # As if this had not run before, also by the `python` that it wrote.
    sys.path[:] = [path for path in sys.path if Path(path).resolve() != site]
    manifest = json.loads((HERE / "bundle.json").read_text(encoding="utf-8"))
    fault = wrong_machine(manifest)
    if fault:
        parser.exit(1, f"install: {fault}\n")
    plan = choose(manifest, version_here, specifier_check())
    for note in plan.notes:
        print(f"install: {note}")
    if plan.faults:
        parser.exit(1, "".join(f"install: {fault}\n" for fault in plan.faults))
    install(plan.files, site, HERE / "wheels" / manifest["wheels"][PIP])
    launcher = write_launcher(into, site)
    print(f"install: {len(plan.files)} packages in {site}; a look at the whole, some seconds:")
    code = subprocess.call([str(launcher), "-m", "nanodet_d2", "env"], cwd=into)
    if code == 0:
        print(f"install: done. Use {launcher} in place of {sys.executable}")
    sys.exit(code)


def wrong_machine(manifest: dict) -> str:
    """Why this folder is not for this machine; empty if it is."""
    python, machine = "{}.{}".format(*sys.version_info), platform.machine()
    if (python, machine) == (manifest["python"], manifest["machine"]):
        return ""
    return (
        f"this is Python {python} on {machine}; these wheels are for Python {manifest['python']} "
        f"on {manifest['machine']}. Have others made: make offline-bundle "
        f"PYTHON_VERSION={python} ARGS='--machine {machine}'"
    )


def choose(
    manifest: dict,
    version: Callable[[str], Optional[str]],
    fits: Callable[[str, str], bool],
) -> Plan:
    """Decide what to install.

    Args:
        manifest: of this folder.
        version: of a package that is here, by its name; None if it is not.
        fits: whether a version, the second, is one of those that the first describes.
    """
    files, notes, faults = [], [], []
    for name, file in manifest["wheels"].items():
        if name == PIP:
            continue
        found, asked = version(name), manifest["asked"].get(name, "")
        if found is not None and name != "nanodet-d2" and fits(asked, found):
            continue
        files.append(file)
        if found is not None:
            which = f"; {asked} is needed" if asked else ""
            notes.append(f"{name} {found} is here{which}: this folder's is used in its place")
    for name in manifest["given"]:
        found, asked = version(name), manifest["asked"].get(name, "")
        if found is None:
            faults.append(f"there is no {name} {asked}, and it is not in this folder")
        elif not fits(asked, found):
            faults.append(f"{name} {found} is here; {asked} is needed, and not in this folder")
    return Plan(files, notes, faults)


def version_here(name: str) -> Optional[str]:
    """Version of a package of this Python, perhaps under another name; None if it is not there."""
    for known in (name, *ALIASES.get(name, ())):
        try:
            return importlib.metadata.version(known)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def specifier_check() -> Callable[[str, str], bool]:
    """:func:`choose`'s ``fits``, by the library that pip brings along."""
    (pip,) = (HERE / "wheels").glob(f"{PIP}-*.whl")
    sys.path.insert(0, str(pip))
    try:
        from pip._vendor.packaging.specifiers import SpecifierSet
    finally:
        sys.path.remove(str(pip))
    return lambda asked, found: SpecifierSet(asked).contains(found, prereleases=True)


def install(files: list[str], site: Path, pip: Path) -> None:
    """Unpack wheels into a folder, which is made anew; ends with pip's words where it fails."""
    if site.exists():
        shutil.rmtree(site)
    options = ["--no-index", "--no-deps", "--no-compile", "--no-cache-dir", "--quiet"]
    options += ["--disable-pip-version-check", "--target", str(site)]
    command = [sys.executable, str(pip / PIP), "install", *options]
    # Variables and files of settings could name an index, or a place to install to.
    env = {k: v for k, v in os.environ.items() if not k.startswith("PIP_")}
    done = subprocess.run(
        [*command, *(str(HERE / "wheels" / file) for file in files)],
        env={**env, "PIP_CONFIG_FILE": os.devnull},
    )
    if done.returncode:
        sys.exit(f"install: pip ended with {done.returncode}")


def write_launcher(into: Path, site: Path) -> Path:
    """The command that starts this Python with the packages in ``site``."""
    launcher = into / "python"
    text = LAUNCHER.format(site=shlex.quote(str(site)), python=shlex.quote(sys.executable))
    launcher.write_text(text, encoding="utf-8")
    launcher.chmod(0o755)
    return launcher


if __name__ == "__main__":
    main()
