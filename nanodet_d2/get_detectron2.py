"""Gets detectron2 into the Python environment that runs this file.

    python nanodet_d2/get_detectron2.py

No package index carries detectron2 under its own name, so no requirement of ours can name it. This
tool tries, in this order, and says why it moves on:

1. a detectron2 that already imports: nothing is installed. One that is there and does not import
   ends the search, because it is somebody's: with --replace it is replaced;
2. the official Git repository at a pinned commit, compiled here (about two minutes);
3. a source archive of the official v0.6 whose C++ sources are missing. Its Python packages are
   installed without the compiled extension; a stand-in names the operator somebody asks for.

It needs torch in the environment, is of the standard library only, and imports nothing of ours: it
has to run before nanodet_d2 can be imported.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Callable, Optional

logger = logging.getLogger("get_detectron2")

GIT_URL = "https://github.com/facebookresearch/detectron2"
GIT_COMMIT = "e0ec4e189d438848521aee7926f9900e114229f5"  # of the main branch, 2025
GIT_FETCH_S = 300
GIT_ANSWER_S = 8  # an unreachable host must not cost minutes
GIT_BUILD_S = 1800

ARCHIVE = "pb1-detectron2==0.6"
ARCHIVE_SHA256 = "5d2e9e51e523ec72f6a31cca04b0a515492e9514b773a3d134cedc0677170b29"
WHEEL_VERSION = "0.6+python"  # the local part tells it from a compiled 0.6 in `pip list`

# Newer pip refuses the archive's metadata (an extra of it names a URL), hence a pip of our own, in
# a folder of its own; setuptools and wheel, because builds run without isolation: the setup.py of
# either source imports torch. These run code here, so pip gets their checksums, of PyPI's wheels.
BUILD_TOOLS = """\
pip==24.0 \\
 --hash=sha256:ba0d021a166865d2265246961bec0152ff124de910c5cc39f1156ce3fa7c69dc
setuptools==80.9.0 \\
 --hash=sha256:062d34222ad13e0cc312a4c02d73f059e86a4acbfbdea8f8f76b28c99f306922
wheel==0.45.1 \\
 --hash=sha256:708e7481cc80179af0e556bbf0cc00b8444c7321e2700b8d8580231d13017248
"""

# What v0.6 spells in a way that Pillow >= 10, NumPy >= 1.24 and setuptools >= 82 no longer know.
REWRITES = (
    (re.compile(r"\bImage\.LINEAR\b"), "Image.BILINEAR"),  # two names of one filter
    (re.compile(r"\bnp\.(bool|float|int|object|str)\b"), r"\1"),  # were aliases of the builtins
    (re.compile(r"^import pkg_resources\n", re.MULTILINE), ""),
    (
        re.compile(r'pkg_resources\.resource_filename\(\s*"detectron2\.model_zoo",'),
        "os.path.join(os.path.dirname(__file__),",
    ),
)

PROBE = """
from PIL import Image
Image.LINEAR = Image.BILINEAR  # v0.6 wants it, Pillow >= 10 lacks it, nanodet_d2.compat supplies it
import detectron2
from detectron2 import config, data, engine, evaluation, layers
print(detectron2.__version__, "at", detectron2.__path__[0])
"""

FIND = """
import importlib.metadata, importlib.util
spec = importlib.util.find_spec("detectron2")
if spec and spec.origin:
    print(spec.origin)
else:
    found = [x for x in importlib.metadata.distributions(name="detectron2")]
    print("".join(f"detectron2 {x.version}, without its files" for x in found[:1]))
"""

STUB = f'''"""Stands in for detectron2's compiled extension, which this installation lacks."""


class MissingOperatorError(AttributeError):
    """An operator of the extension was asked for; `hasattr` answers False."""


def get_compiler_version():
    return "none (installed without the compiled extension)"


def get_cuda_version():
    return "none (installed without the compiled extension)"


def has_cuda():
    return False


def __getattr__(name):
    raise MissingOperatorError(
        f"detectron2._C has no operator {{name!r}}: this detectron2 was installed without its "
        "compiled extension. With a C++ compiler and Git access, get a compiled one by: "
        "pip install --no-build-isolation git+{GIT_URL}@{GIT_COMMIT}"
    )
'''

SETUP = f'''from pathlib import Path

from setuptools import find_packages, setup

PROJECTS = {{
    "detectron2.projects.point_rend": "projects/PointRend/point_rend",
    "detectron2.projects.deeplab": "projects/DeepLab/deeplab",
    "detectron2.projects.panoptic_deeplab": "projects/Panoptic-DeepLab/panoptic_deeplab",
}}
PROJECTS = {{name: path for name, path in PROJECTS.items() if Path(path).is_dir()}}
setup(
    name="detectron2",
    version="{WHEEL_VERSION}",
    description="detectron2 v0.6 without its compiled extension",
    url="{GIT_URL}",
    packages=find_packages(include=("detectron2", "detectron2.*")) + list(PROJECTS),
    package_dir=PROJECTS,
    package_data={{"detectron2.model_zoo": ["configs/**/*.yaml", "configs/**/*.py"]}},
    # v0.6 asks for these; left out are its bounds that no longer hold (black, iopath) and what only
    # its caffe2 export used (future, pydot).
    install_requires=[
        "Pillow>=7.1", "black", "cloudpickle", "fvcore>=0.1.5", "hydra-core>=1.1", "iopath>=0.1.7",
        "matplotlib", "omegaconf>=2.1", "pycocotools>=2.0.2", "tabulate", "tensorboard",
        "termcolor>=1.1", "tqdm>4.29.0", "yacs>=0.1.8",
    ],
)
'''


class UnavailableError(RuntimeError):
    """A source cannot give us detectron2; the message says why."""


class InTheWayError(UnavailableError):
    """Going on would replace what somebody has installed."""


def run(
    command: Sequence[object],
    *,
    cwd: Path,
    env: Optional[Mapping[str, str]] = None,
    timeout: Optional[float] = None,
) -> str:
    """Runs a command and returns its output; raises with its last words where it fails."""
    arguments = [str(part) for part in command]
    name = " ".join(Path(arguments[0]).name if i == 0 else a for i, a in enumerate(arguments[:4]))
    try:
        done = subprocess.run(
            arguments, cwd=cwd, env=env, timeout=timeout, capture_output=True, text=True
        )
    except subprocess.TimeoutExpired:
        raise UnavailableError(f"`{name} ...` gave no result within {timeout:g} s") from None
    except OSError as error:
        raise UnavailableError(f"`{name} ...` cannot be run: {error}") from None
    if done.returncode:
        words = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        last = "\n    ".join(words[-8:]) or "no output"
        raise UnavailableError(f"`{name} ...` ended with {done.returncode}:\n    {last}")
    return done.stdout.strip()


def probe(folder: Path) -> str:
    """Returns version and place of the installed detectron2; raises where it does not import."""
    # Run elsewhere: a checkout in the current folder would pass for a package.
    try:
        return run([sys.executable, "-c", PROBE], cwd=folder)
    except UnavailableError as error:
        reason = str(error).splitlines()[-1].strip()
        raise UnavailableError(f"it does not import: {reason}") from None


def with_build_tools(folder: Path) -> dict[str, str]:
    """Puts `BUILD_TOOLS` into a folder and returns an environment in which Python sees them."""
    tools, requirements = folder / "tools", folder / "build_tools.txt"
    requirements.write_text(BUILD_TOOLS)
    pip_install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    flags = ["--require-hashes", "--only-binary", ":all:", "--upgrade", "--target", tools]
    run([*pip_install, *flags, "-r", requirements], cwd=folder)
    path = os.pathsep.join(filter(None, (str(tools), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path}


def from_installed(options: argparse.Namespace, folder: Path) -> str:
    """Source 1: a detectron2 that already imports.

    Raises:
        InTheWayError: if there is one that does not import, unless it may be replaced.
    """
    try:
        return probe(folder)
    except UnavailableError as error:
        found = run([sys.executable, "-c", FIND], cwd=folder)
        if not found or options.replace:
            raise
        raise InTheWayError(
            f"a detectron2 is here ({found}), but {error}. Repair it, or remove it, or have it "
            "replaced: --replace"
        ) from None


def from_git(options: argparse.Namespace, folder: Path) -> str:
    """Source 2: the official repository, compiled with the torch that is here."""
    git = shutil.which("git")
    if git is None:
        raise UnavailableError("there is no git command")
    quiet = {**os.environ, "GIT_TERMINAL_PROMPT": "0"}
    run([git, "ls-remote", GIT_URL, "HEAD"], cwd=folder, env=quiet, timeout=GIT_ANSWER_S)
    logger.info("  it answers; compiling detectron2, about two minutes")
    source = fetch_commit(git, folder / "source", quiet)
    install = [sys.executable, "-m", "pip", "install", "--no-build-isolation", *options.pip_args]
    env = with_build_tools(folder)
    run([*install, source], cwd=folder, env=env, timeout=GIT_BUILD_S)
    return probe(folder)


def fetch_commit(git: str, folder: Path, env: Mapping[str, str]) -> Path:
    """Checks `GIT_COMMIT` out into a folder, and that it is that: nothing of it has run yet.

    The id is a hash of the content, which Git computes of what it is sent.
    """
    folder.mkdir()
    for command in (
        ["init", "--quiet"],
        ["fetch", "--quiet", "--depth", "1", GIT_URL, GIT_COMMIT],
        ["checkout", "--quiet", "FETCH_HEAD"],
    ):
        run([git, *command], cwd=folder, env=env, timeout=GIT_FETCH_S)
    found = run([git, "rev-parse", "HEAD"], cwd=folder, env=env)
    if found != GIT_COMMIT:
        raise UnavailableError(f"{GIT_URL} gave commit {found}, but {GIT_COMMIT} is required")
    return folder


def from_archive(options: argparse.Namespace, folder: Path) -> str:
    """Source 3: the Python packages of the v0.6 source archive."""
    wheel = python_wheel(folder, archive=options.archive)
    install = [sys.executable, "-m", "pip", "install"]
    # Twice: the first replaces whatever is there, the second adds the dependencies not yet here.
    run([*install, "--no-deps", "--force-reinstall", wheel], cwd=folder)
    run([*install, *options.pip_args, wheel], cwd=folder)
    return probe(folder)


def python_wheel(folder: Path, *, archive: Optional[Path] = None) -> Path:
    """Builds, in a folder, the wheel of source 3, which is for any Python on any system.

    Args:
        folder: an empty one.
        archive: a local copy of the source archive; fetched if None.
    """
    env = with_build_tools(folder)
    archive = archive or download_archive(folder, env)
    verify_sha256(archive, ARCHIVE_SHA256)
    return build_wheel(unpack(archive, folder / "source"), folder / "wheel", env)


def download_archive(folder: Path, env: Mapping[str, str]) -> Path:
    """Has pip fetch the archive from the package index it is configured for."""
    try:
        run([sys.executable, "-c", "import torch"], cwd=folder)
    except UnavailableError as error:
        reason = str(error).splitlines()[-1].strip()
        raise UnavailableError(f"torch must be installed first ({reason})") from None
    requirement = folder / "archive.txt"
    # With the hash in the requirement pip refuses another file before it runs its setup.py.
    requirement.write_text(f"{ARCHIVE} --hash=sha256:{ARCHIVE_SHA256}\n")
    pip_download = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-build-isolation"]
    flags = ["--no-binary", ":all:", "--dest", folder / "download", "-r", requirement]
    run([*pip_download, *flags], cwd=folder, env=env)
    (archive,) = (folder / "download").iterdir()
    return archive


def verify_sha256(archive: Path, expected: str) -> None:
    """Raises unless the file has the expected checksum."""
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != expected:
        raise UnavailableError(f"{archive.name} has sha256 {found}, but {expected} is required")


def unpack(archive: Path, folder: Path) -> Path:
    """Unpacks the archive and returns the one folder in it."""
    with tarfile.open(archive) as tar:
        if hasattr(tarfile, "data_filter"):
            tar.extractall(folder, filter="data")
        else:  # Python before 3.9.17; the checksum has told that this is the known file
            tar.extractall(folder)
    (root,) = folder.iterdir()
    return root


def build_wheel(root: Path, folder: Path, env: Mapping[str, str]) -> Path:
    """Builds a wheel of the unpacked sources: no extension, fit for today's packages."""
    for path in sorted(root.rglob("*.py")):
        text = new = path.read_text(encoding="utf-8")
        for pattern, replacement in REWRITES:
            new = pattern.sub(replacement, new)
        if new != text:
            logger.info("  adapted %s", path.relative_to(root))
            path.write_text(new, encoding="utf-8")
    (root / "setup.py").write_text(SETUP, encoding="utf-8")
    (root / "detectron2" / "_C.py").write_text(STUB, encoding="utf-8")
    flags = ["--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", folder]
    run([sys.executable, "-m", "pip", "wheel", *flags, root], cwd=root, env=env)
    (wheel,) = folder.glob("detectron2-*.whl")
    return wheel


def sources() -> dict[str, tuple[str, Callable[[argparse.Namespace, Path], str]]]:
    """Returns the sources in the order they are tried: name -> what it is, and how to take it."""
    return {
        "installed": ("a detectron2 that already imports", from_installed),
        "git": (f"the official Git repository at {GIT_COMMIT[:8]}", from_git),
        "archive": (f"the source archive {ARCHIVE}, without the compiled extension", from_archive),
    }


def get_detectron2(options: argparse.Namespace) -> str:
    """Tries the sources in turn and returns version and place of the detectron2 that works.

    Raises:
        UnavailableError: no source worked; the message has every reason.
        InTheWayError: there is one that does not work, and it may not be replaced.
    """
    reasons = []
    for name, (title, take) in sources().items():
        if name in options.skip:
            reasons.append(f"{title}: skipped as asked")
            continue
        logger.info("trying %s", title)
        with tempfile.TemporaryDirectory(prefix="get_detectron2_") as folder:
            try:
                found = take(options, Path(folder))
            except InTheWayError:
                raise
            except UnavailableError as error:
                logger.info("  moving on: %s", error)
                reasons.append(f"{title}: {error}")
                continue
        logger.info("detectron2 %s", found)
        return found
    raise UnavailableError("no source gave a detectron2 that works:\n- " + "\n- ".join(reasons))


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--archive", type=Path, help="a local copy of the source archive")
    parser.add_argument("--constraint", type=Path, help="pip constraints for its dependencies")
    parser.add_argument(
        "--replace", action="store_true", help="a detectron2 that is here and does not import"
    )
    parser.add_argument("--skip", action="append", default=[], choices=list(sources()))
    options = parser.parse_args(argv)
    for path in filter(None, (options.archive, options.constraint)):
        if not path.is_file():
            parser.error(f"there is no file {path}")
    options.archive = options.archive and options.archive.resolve()
    options.pip_args = ["-c", options.constraint.resolve()] if options.constraint else []
    logging.basicConfig(level=logging.INFO, format="get_detectron2: %(message)s")
    try:
        get_detectron2(options)
    except UnavailableError as error:
        logger.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
