"""Builds the C++ programs: those whose engine's headers and libraries are found.

    python projects/nanodet_plus/cpp/build.py [--engines openvino ncnn] [--output FOLDER]

OpenVINO and libtorch lie in their wheels. The wheel of ncnn has no library for C++: the source
archive of the same version is fetched and compiled once (minutes), and kept in the user's cache.
ONNX Runtime's wheel has the library, but no headers, nor has any other package there: Debian 13
does (``apt-get install libonnxruntime-dev``), or give those of a release by ``--ort-include``.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from iopath.common.file_io import file_lock, get_cache_dir

FOLDER = Path(__file__).resolve().parent
OUTPUT = FOLDER.parents[2] / "output" / "cpp"
ORT_HEADER = "onnxruntime_cxx_api.h"  # an older one works with a newer library
ORT_HEADERS = (Path("/usr/include/onnxruntime"), Path("/usr/local/include/onnxruntime"))


class Missing(Exception):
    """An engine cannot be built; the message tells what it lacks."""


def package_folder(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise Missing(f"the package {name} is not installed: pip install {name}")
    return Path(spec.origin).parent


def cached(name: str, make: Callable[[Path], None]) -> Path:
    """A folder of the user's cache, made once."""
    folder = Path(get_cache_dir(), "nanodet_d2", "cpp", name)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with file_lock(str(folder)):
        if not folder.is_dir():
            with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
                made = Path(temporary, "made")
                make(made)
                os.replace(made, folder)
    return folder


def fetch_sources(name: str, version: str, folder: Path) -> Path:
    """The unpacked source archive of a package."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:"]
    command += ["--no-build-isolation", "--dest", str(folder)]
    said = subprocess.run([*command, f"{name}=={version}"], capture_output=True, text=True)
    # ncnn's archive calls its version after today's date, so that pip discards it; by its address
    # it is taken.
    address = re.search(r"Discarding (\S+\.tar\.gz)", said.stdout + said.stderr)
    if said.returncode and address:
        said = subprocess.run([*command, address[1]], capture_output=True, text=True)
    archives = list(folder.glob("*.tar.gz"))
    if said.returncode or not archives:
        lines = said.stderr.strip().splitlines() or ["no source archive"]
        raise Missing(f"pip cannot fetch the sources of {name} {version}: {lines[-1]}")
    with tarfile.open(archives[0]) as archive:
        archive.extractall(folder, filter="data")
    (sources,) = (x for x in folder.iterdir() if x.is_dir())
    return sources


def run(command: Sequence[str | Path], purpose: str, *, shown: bool = False) -> None:
    done = subprocess.run(list(map(str, command)), capture_output=not shown, text=True)
    if done.returncode:
        said = "" if shown else f":\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
        raise Missing(f"{purpose} failed{said}")


def openvino() -> dict[str, Path]:
    folder = package_folder("openvino") / "cmake"
    if not folder.is_dir():
        raise Missing(f"this openvino carries no CMake files: {folder} is not there")
    return {"NANODET_OPENVINO": folder}


def ncnn() -> dict[str, Path]:
    system = Path("/usr/lib/cmake/ncnn")
    package_folder("ncnn")
    version = importlib.metadata.version("ncnn")

    def make(made: Path) -> None:
        print(f"ncnn {version}: compiling its library, once, for some minutes", flush=True)
        with tempfile.TemporaryDirectory() as temporary:
            sources = fetch_sources("ncnn", version, Path(temporary))
            build = Path(temporary, "build")
            off = ("VULKAN", "BUILD_TOOLS", "BUILD_EXAMPLES", "BUILD_BENCHMARK", "BUILD_TESTS")
            run(
                ["cmake", "-S", sources, "-B", build, "-DCMAKE_BUILD_TYPE=Release"]
                + [f"-DCMAKE_INSTALL_PREFIX={made}", *(f"-DNCNN_{name}=OFF" for name in off)],
                "setting up ncnn",
            )
            run(["cmake", "--build", build, "--parallel", str(os.cpu_count())], "compiling ncnn")
            run(["cmake", "--install", build], "installing ncnn")

    try:
        (config,) = cached(f"ncnn-{version}", make).glob("lib*/cmake/ncnn")
    except Missing as error:
        if not system.is_dir():
            raise
        print(f"ncnn: {error}; the system's is taken", flush=True)
        config = system
    return {"NANODET_NCNN": config}


def onnxruntime(include: Path | None) -> dict[str, Path]:
    libraries = sorted((package_folder("onnxruntime") / "capi").glob("libonnxruntime.so.*"))
    if not libraries:
        raise Missing("the wheel of onnxruntime has no libonnxruntime.so; needed: 1.20 or later")

    folders = [x for x in ((include,) if include else ORT_HEADERS) if (x / ORT_HEADER).is_file()]
    if not folders:
        raise Missing(f"there is no {ORT_HEADER}: Debian 13 has it in libonnxruntime-dev; or give "
                      "the folder of a release's by --ort-include")  # fmt: skip
    return {"NANODET_ORT_INCLUDE": folders[0], "NANODET_ORT_LIBRARY": libraries[-1]}


def libtorch() -> dict[str, Path]:
    folder = package_folder("torch")
    if not (folder / "include" / "torch").is_dir():
        raise Missing(f"this torch carries no headers: {folder / 'include'}")
    return {"NANODET_TORCH": folder}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    engines = ("openvino", "ncnn", "onnxruntime", "libtorch")
    parser.add_argument("--engines", nargs="*", choices=engines, default=engines)
    parser.add_argument("--output", type=Path, default=OUTPUT, help=f"default: {OUTPUT}")
    parser.add_argument("--ort-include", type=Path, help="folder of onnxruntime_cxx_api.h")
    parser.add_argument("--sanitize", action="store_true", help="with AddressSanitizer and UBSan")
    arguments = parser.parse_args()
    for tool, package in (("cmake", "cmake"), (os.environ.get("CXX", "c++"), "g++")):
        if shutil.which(tool) is None:
            print(f"cpp: there is no {tool}; on Debian: apt-get install {package}", file=sys.stderr)
            return 2
    finders = {"openvino": openvino, "ncnn": ncnn, "libtorch": libtorch,
               "onnxruntime": lambda: onnxruntime(arguments.ort_include)}  # fmt: skip
    found: dict[str, Path] = {}
    for name in arguments.engines:
        try:
            found |= finders[name]()
            print(f"{name}: found", flush=True)
        except Missing as error:
            print(f"{name}: left out, as {error}", flush=True)
    options = [f"-D{name}={path}" for name, path in found.items()]
    if arguments.sanitize:
        flags = "-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer"
        options += [f"-DCMAKE_CXX_FLAGS={flags}", "-DCMAKE_BUILD_TYPE=RelWithDebInfo"]
    try:
        run(["cmake", "-S", FOLDER, "-B", arguments.output, *options], "setting up")
        run(["cmake", "--build", arguments.output, "--parallel", "2"], "compiling", shown=True)
    except Missing as error:
        print(f"cpp: {error}", file=sys.stderr)
        return 1
    programs = sorted(x for x in arguments.output.glob("nanodet_*") if os.access(x, os.X_OK))
    print("built:", *(str(x) for x in programs if x.is_file()), sep="\n  ")
    return 0


if __name__ == "__main__":
    sys.exit(main())
