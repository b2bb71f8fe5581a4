"""The folder for a machine without network: what is packed, what is installed, and that it runs."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from tests.scripts import load_script
from tests.wheels import ROOT, Environment, bundle

OFFLINE = ROOT / "projects" / "nanodet_plus" / "offline"
GPU_CHECK = Path("projects/nanodet_plus/benchmarks/gpu_check.py")
NO_NETWORK = [  # but for the machine itself
    *("unshare", "--user", "--map-root-user", "--net"),
    *("sh", "-c", 'ip link set lo up && exec "$@"', "sh"),
]
TARGET = bundle.Target("3.12", "x86_64")
installer = load_script(OFFLINE / "install.py")


def make_wheel(folder: Path, name: str, version: str, *required: str, python: str = "") -> Path:
    """A wheel that holds nothing but its metadata."""
    stem = f"{name.replace('-', '_')}-{version}"
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Python: {python}"] * bool(python)
    lines += [f"Requires-Dist: {x}" for x in required]
    path = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{stem}.dist-info/METADATA", "\n".join(lines) + "\n\nText.\n")
        archive.writestr("vendored/other-1.dist-info/METADATA", "Name: other\n\n")
    return path


@pytest.mark.parametrize(
    ("python", "machine", "wanted"),
    [("3.12", "x86_64", {"a", "d"}), ("3.9", "aarch64", {"a", "b", "e"})],
)
def test_markers_are_those_of_the_other_machine(tmp_path, python, machine, wanted):
    required = ["a>=1", 'b; python_version < "3.10"', 'c; sys_platform == "win32"']
    required += ['d; platform_machine == "x86_64"', 'e; python_full_version < "3.9.5"']
    make_wheel(tmp_path, "root", "1.0", *required, 'f; extra == "all"')
    make_wheel(tmp_path, "A_two", "2.0", "a<3")
    asked = bundle.asked_by(tmp_path, bundle.Target(python, machine))
    assert set(asked) == wanted
    assert asked["a"] == SpecifierSet(">=1,<3")


def test_pip_is_asked_for_the_other_machines_wheels():
    options = bundle.Target("3.10", "aarch64").pip_options()
    platforms = [value for option, value in zip(options, options[1:]) if option == "--platform"]
    assert platforms[0] == "manylinux_2_28_aarch64" and platforms[-1] == "manylinux2014_aarch64"
    assert "manylinux_2_17_aarch64" in platforms
    assert options[options.index("--python-version") + 1] == "3.10"
    assert ":all:" in options  # nothing is built for this machine


class Index:
    """In place of pip: makes wheels of what it is asked for."""

    offered: dict[str, tuple[str, list[str]]] = {}

    def __init__(self, wheels, target, work, *, env):
        self.wheels, self.fetched = wheels, []
        type(self).last = self

    def fetch(self, *requirements: str) -> None:
        for name in (Requirement(x).name for x in requirements):
            version, required = self.offered[name]
            make_wheel(self.wheels, name, version, *required)
            self.fetched.append(name)

    def build(self, names) -> None:
        self.fetch(*names)


@pytest.fixture
def index(monkeypatch):
    """An index of a few packages, and builds that need none."""
    offered = {
        "pip": ("24.0", []),
        "fvcore": ("0.1.5", ["iopath", "numpy>=1.20"]),
        "iopath": ("0.1.9", ["tqdm"]),
        "antlr4-python3-runtime": ("4.9.3", []),
        "tqdm": ("4.70", []),
        "omegaconf": ("2.3.1", ["antlr4-python3-runtime==4.9.*"]),
    }
    monkeypatch.setattr(Index, "offered", offered)
    monkeypatch.setattr(bundle, "Pip", Index)
    monkeypatch.setattr(bundle, "with_build_tools", lambda folder: {})
    own = ["torch>=2.6", "fvcore>=0.1.5", "omegaconf<2.4", "numpy", "black"]
    monkeypatch.setattr(
        bundle,
        "project_wheel",
        lambda source, wheels: make_wheel(wheels, "nanodet-d2", "1.0", *own, python=">=3.9"),
    )
    monkeypatch.setattr(
        bundle, "python_wheel", lambda folder: make_wheel(folder, "detectron2", "0.6")
    )
    return offered


def test_all_that_is_asked_for_is_packed_but_what_is_there(index, tmp_path):
    output = tmp_path / "bundle"
    size = bundle.write_bundle(output, TARGET, torch="2.11.0")
    content = json.loads((output / "bundle.json").read_text())
    assert sorted(content["wheels"]) == sorted([*index, "nanodet-d2", "detectron2"])
    assert (content["python"], content["torch"]) == ("3.12", "2.11.0")
    assert content["asked"]["torch"] == ">=2.6" and content["asked"]["numpy"] == ">=1.20"
    assert "torch" not in content["wheels"] and "black" not in content["wheels"]
    assert all((output / "wheels" / file).is_file() for file in content["wheels"].values())
    files = [x for x in output.rglob("*") if x.is_file()]
    assert size == sum(x.stat().st_size for x in files) < bundle.MAX_BYTES
    for name in ("README.md", "install.py", GPU_CHECK, GPU_CHECK.with_name("gpu") / "speed.py"):
        assert (output / name).is_file()
    (output / "site").mkdir()
    bundle.write_bundle(output, TARGET)  # its own is replaced
    assert not (output / "site").exists()


def test_what_does_not_go_together_is_not_packed(index, tmp_path):
    index["iopath"] = ("0.1.9", ["tqdm<4"])
    with pytest.raises(bundle.UnavailableError, match="tqdm 4.70 was taken, but <4 is asked for"):
        bundle.write_bundle(tmp_path / "bundle", TARGET)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("target", "torch", "message"),
    [
        (bundle.Target("3.8", "x86_64"), None, "Python 3.8; allowed: >=3.9"),
        (TARGET, "2.5.1", "torch 2.5.1; allowed: >=2.6"),
    ],
)
def test_what_the_project_does_not_run_with_is_refused(index, tmp_path, target, torch, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        bundle.write_bundle(tmp_path / "bundle", target, torch=torch)


def test_somebody_elses_folder_is_left_alone(tmp_path):
    (tmp_path / "thesis.pdf").write_text("mine")
    with pytest.raises(ValueError, match="is there already, and no such bundle"):
        bundle.write_bundle(tmp_path, TARGET)
    assert [x.name for x in tmp_path.iterdir()] == ["thesis.pdf"]


def test_too_much_is_refused_and_the_largest_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(bundle, "MAX_BYTES", 10**6)
    (tmp_path / "large.whl").write_bytes(bytes(10**6))
    (tmp_path / "small.whl").write_bytes(b"1")
    with pytest.raises(ValueError, match=r"1.0 MB; allowed: 1. The largest: large.whl 1.0 MB"):
        bundle.check_size(tmp_path)


def test_constraints_are_those_of_the_other_python(tmp_path, monkeypatch):
    file = tmp_path / "pinned.txt"
    file.write_text('# versions\nold==1.0; python_version < "3.11"\nnew==2.0 # the newest\n')
    monkeypatch.setattr(bundle, "CONSTRAINTS", file)
    pip = bundle.Pip(tmp_path, TARGET, tmp_path, env={})
    assert pip.constraints.read_text() == "new==2.0\n"


MANIFEST = {
    "given": ["torch", "opencv-python-headless"],
    "asked": {"torch": ">=2.6", "opencv-python-headless": "<5,>=4.7", "pillow": ">=9", "yacs": ""},
    "wheels": {
        "pip": "pip.whl",
        "pillow": "pillow.whl",
        "yacs": "yacs.whl",
        "nanodet-d2": "own.whl",
        "detectron2": "detectron2.whl",
    },
}


def fits(asked: str, found: str) -> bool:
    return SpecifierSet(asked).contains(Version(found), prereleases=True)


def test_what_is_there_and_fits_is_left_out():
    here = {"torch": "2.11.0+cu130", "opencv-python-headless": "4.12.0.88", "yacs": "0.1.8"}
    plan = installer.choose(MANIFEST, here.get, fits)
    assert plan.files == ["pillow.whl", "own.whl", "detectron2.whl"]
    assert not plan.notes and not plan.faults
    here |= {"pillow": "8.0", "nanodet-d2": "0.0.9", "detectron2": "0.6"}
    plan = installer.choose(MANIFEST, here.get, fits)
    assert plan.files == ["pillow.whl", "own.whl"]
    assert plan.notes[0] == "pillow 8.0 is here; >=9 is needed: this folder's is used in its place"


def test_what_the_folder_cannot_help_with_is_named():
    plan = installer.choose(MANIFEST, {"torch": "2.5.1"}.get, fits)
    assert plan.faults == [
        "torch 2.5.1 is here; >=2.6 is needed, and not in this folder",
        "there is no opencv-python-headless <5,>=4.7, and it is not in this folder",
    ]


def test_opencv_counts_by_any_of_its_names(monkeypatch):
    def version(name: str) -> str:
        if name != "opencv-contrib-python":
            raise importlib.metadata.PackageNotFoundError
        return "4.10"

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert installer.version_here("opencv-python-headless") == "4.10"
    assert installer.version_here("torch") is None


def test_another_machines_folder_is_refused():
    python = "{}.{}".format(*sys.version_info)
    here = {"python": python, "machine": platform.machine()}
    assert installer.wrong_machine(here) == ""
    said = installer.wrong_machine({**here, "python": "3.7"})
    assert f"this is Python {python}" in said and "wheels are for Python 3.7" in said


def test_the_launcher_puts_the_folder_behind_what_was_asked_for(tmp_path):
    into = tmp_path / "a folder's"
    into.mkdir()
    launcher = installer.write_launcher(into, into / "site")
    code = "import os, sys; print(os.environ['PYTHONPATH'], *sys.argv[1:], sep='|')"
    command = [str(launcher), "-c", code, "an argument"]
    for before, expected in (("", f"{into}/site"), ("/mine", f"/mine:{into}/site")):
        environment = {**os.environ, "PYTHONPATH": before}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.stdout.strip() == f"{expected}|an argument", done.stderr


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> Path:
    """A folder for this Python, fetched from the index that pip is configured for."""
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--timeout", "5"]
    scratch = tmp_path_factory.mktemp("reachable")
    asked = subprocess.run([*pip, "--retries", "0", "--dest", str(scratch), "yacs"])
    if asked.returncode:
        pytest.skip("packing needs a package index")
    output = tmp_path_factory.mktemp("offline") / "bundle"
    program = [sys.executable, str(OFFLINE / "bundle.py"), "--output", str(output)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*program, "--machine", platform.machine()],
        env=environment,
        cwd=output.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"bundle: \d+\.\d MB", done.stdout)
    return output


def lend(names: tuple[str, ...], environment: Environment) -> set[str]:
    """Links to packages of this environment and to what they need; their names are returned."""
    waiting, lent = list(names), set()
    while waiting:
        name = waiting.pop()
        if name in lent:
            continue
        try:
            found = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # what only another system needs
        lent.add(name)
        for top in {file.parts[0] for file in found.files or [] if file.parts[0] != ".."}:
            place = environment.site / top
            if not place.exists():
                place.symlink_to(found.locate_file(top))
        needed = map(Requirement, found.requires or [])
        waiting += [x.name for x in needed if not x.marker or x.marker.evaluate({"extra": ""})]
    return lent


@pytest.fixture(scope="module")
def bare(tmp_path_factory) -> Environment:
    """An environment with the packages that have to be there, and what those need."""
    environment = Environment(tmp_path_factory.mktemp("bare") / "env")
    lent = lend(bundle.GIVEN, environment)
    assert {"torch", "numpy", "timm"} <= lent and not {"fvcore", "iopath", "matplotlib"} & lent
    return environment


class Alone:
    """Runs commands without network, in an environment without the project's packages."""

    def __init__(self, folder: Path, said: str = ""):
        self.folder, self.said = folder, said
        self.prefix = NO_NETWORK if shutil.which("unshare") else []
        if self.prefix and subprocess.run([*self.prefix, "true"]).returncode:
            self.prefix = []  # this machine does not let us
        clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        # As if the index were gone, too, where the network cannot be taken away.
        clean |= {"PIP_INDEX_URL": "http://127.0.0.1:9/", "CUDA_VISIBLE_DEVICES": ""}
        self.env = clean | {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}

    def run(self, *command: object) -> str:
        done = subprocess.run(
            [*self.prefix, *map(str, command)],
            cwd=self.folder,
            env=self.env,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
        return done.stdout

    def check(self, packed: Path, *parts: str) -> list[dict]:
        """Rows of parts of the GPU check, on the CPU."""
        output = self.folder / "out" / "gpu.json"
        options = ["--device", "cpu", "--threads", 1, "--output", output, "--only", *parts]
        self.run(packed / "python", packed / GPU_CHECK, *options)
        return json.loads(output.read_text())["rows"]


@pytest.fixture(scope="module")
def alone(packed, bare, tmp_path_factory) -> Alone:
    """The folder is installed, and what was there is as it was."""
    before = {x: x.lstat().st_mtime_ns for x in bare.site.iterdir()}
    alone = Alone(tmp_path_factory.mktemp("alone"))
    alone.said = alone.run(bare.bin / "python", packed / "install.py")
    assert {x: x.lstat().st_mtime_ns for x in bare.site.iterdir()} == before
    return alone


@pytest.mark.slow
def test_it_installs_and_runs_where_there_is_no_network(packed, alone):
    size = sum(x.stat().st_size for x in (packed / "wheels").iterdir())
    assert size < 60_000_000
    assert "self-check, cpu" in alone.said and "install: done" in alone.said
    installed = {x.name.partition("-")[0].lower() for x in (packed / "site").glob("*.dist-info")}
    assert {"nanodet_d2", "detectron2", "fvcore", "matplotlib"} <= installed
    assert not {"torch", "numpy", "timm", "pip", "pyyaml"} & installed  # timm needs pyyaml
    rows = alone.check(packed, "equality")
    assert [x["outcome"] for x in rows] == ["measured", *["passed"] * 4]


@pytest.mark.slow
def test_it_trains_and_evaluates_where_there_is_no_network(packed, alone):
    rows = alone.check(packed, "contracts", "learning")
    assert not [x for x in rows if x["outcome"] == "failed"]
    assert sum(x["outcome"] == "passed" for x in rows) >= 6


def test_the_installer_needs_no_more_than_the_standard_library(tmp_path):
    code = f"import runpy, sys; runpy.run_path({str(OFFLINE / 'install.py')!r})\n"
    code += "print([x for x in ('pip', 'packaging', 'numpy') if x in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-S", "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]", done.stderr
