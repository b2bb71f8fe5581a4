"""The machine that wheels are for, and what wheels say of themselves."""

from __future__ import annotations

import dataclasses
import zipfile
from collections.abc import Iterator
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import Version

NEWEST_GLIBC = 28  # 2.28, which torch's own wheels ask for
OLDEST_GLIBC = 17


@dataclasses.dataclass(frozen=True)
class Target:
    """The machine that the folder is for: its Python, as "3.12", and its processor."""

    python: str
    machine: str

    def markers(self) -> dict[str, str]:
        """What requirements may depend on."""
        known = {str(k): str(v) for k, v in default_environment().items()}
        return {
            **known,
            "implementation_name": "cpython",
            "os_name": "posix",
            "platform_machine": self.machine,
            "platform_python_implementation": "CPython",
            "platform_system": "Linux",
            "python_full_version": f"{self.python}.0",
            "python_version": self.python,
            "sys_platform": "linux",
            "extra": "",
        }

    def wants(self, requirement: Requirement) -> bool:
        return requirement.marker is None or requirement.marker.evaluate(self.markers())

    def pip_options(self) -> list[str]:
        """What has pip look for wheels of this machine, by the names that it compares as texts."""
        options = ["--only-binary", ":all:", "--implementation", "cp"]
        options += ["--python-version", self.python]
        for minor in range(NEWEST_GLIBC, OLDEST_GLIBC - 1, -1):
            options += ["--platform", f"manylinux_2_{minor}_{self.machine}"]
        return [*options, "--platform", f"manylinux2014_{self.machine}"]


def asked_by(wheels: Path, target: Target) -> dict[str, SpecifierSet]:
    """Name -> the versions that all wheels in a folder allow, of what they need on a machine."""
    asked: dict[str, SpecifierSet] = {}
    for _, (path, _) in wheels_in(wheels):
        for requirement in filter(target.wants, requirements_of(path)):
            assert not requirement.extras, f"{path.name} asks for {requirement}: extras"
            name = canonicalize_name(requirement.name)
            asked[name] = asked.get(name, SpecifierSet()) & requirement.specifier
    return asked


def requirements_of(wheel: Path) -> list[Requirement]:
    return [Requirement(x) for x in metadata_of(wheel).get_all("Requires-Dist") or []]


def metadata_of(wheel: Path) -> Message:
    """The fields that a wheel's METADATA begins with."""
    with zipfile.ZipFile(wheel) as archive:
        names = [x for x in archive.namelist() if x.endswith(".dist-info/METADATA")]
        (name,) = (x for x in names if x.count("/") == 1)  # others are of what it brings along
        return HeaderParser().parsestr(archive.read(name).decode("utf-8"))


def wheels_in(folder: Path) -> Iterator[tuple[str, tuple[Path, Version]]]:
    """(Name, (file, version)) of each wheel."""
    for path in sorted(folder.glob("*.whl")):
        name, version, _, _ = parse_wheel_filename(path.name)
        yield name, (path, version)
