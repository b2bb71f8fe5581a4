"""Packaging of nanodet_d2: `pip install .` or `make setup`."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent


def read_version() -> str:
    """Reads `__version__` without importing the package, which needs torch and detectron2."""
    text = (ROOT / "nanodet_d2" / "__init__.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    if match is None:
        raise ValueError('nanodet_d2/__init__.py has no line like __version__ = "1.2.3"')
    return match.group(1)


def config_packages() -> dict:
    """Maps package names onto the folders of configs/, which lie beside the package in a checkout.

    They have no __init__.py (lazy config files are loaded by path), so `find_packages` skips them.
    """
    files = (ROOT / "configs").rglob("*.py")
    folders = {parent for file in files for parent in file.relative_to(ROOT).parents}
    folders.discard(Path("."))
    return {".".join(("nanodet_d2", *path.parts)): path.as_posix() for path in sorted(folders)}


CONFIGS = config_packages()

setup(
    name="nanodet-d2",
    version=read_version(),
    description="NanoDet-Plus for detectron2: a mobile-size detector with lazy configs",
    license="Apache-2.0",
    python_requires=">=3.9",
    packages=find_packages(include=("nanodet_d2", "nanodet_d2.*")) + list(CONFIGS),
    package_dir=CONFIGS,
    # detectron2 is needed, too, but no package index carries it under that name:
    # `python nanodet_d2/get_detectron2.py` gets it. The tested versions of all of these are in
    # .ci/constraints.txt.
    install_requires=[
        "cloudpickle",
        "fvcore>=0.1.5",
        "hydra-core>=1.1",  # detectron2 parses overrides with it
        "iopath>=0.1.7",
        "matplotlib",
        "numpy",
        "omegaconf>=2.1,<2.4",  # hydra 1.x and omegaconf must read with the same antlr runtime, 4.9
        # 4.7 has a class-wise NMS, which the runtime uses. 5.0 warps with another interpolation: the
        # reference's own AP at 416 falls, 36.1 to 35.8.
        "opencv-python-headless>=4.7,<5",
        "pillow",
        "pycocotools>=2.0.2",
        "setuptools<82",  # detectron2's model_zoo imports pkg_resources, which 82 dropped
        "tensorboard",
        "timm>=0.9",
        "torch>=2.6",
        # Each release asks for exactly one torch, so this is what keeps the two a matching pair.
        "torchvision>=0.21",
        "tqdm",
    ],
    extras_require={
        "export": [
            "ncnn",
            "nncf",
            "onnx>=1.17",
            "onnxruntime>=1.20",
            "onnxscript>=0.5",
            "onnxslim",
            "openvino>=2025.0",
            "pnnx",
        ],
        "dev": ["build", "hypothesis", "psutil", "pytest", "ruff", "wheel"],
        "hooks": ["pre-commit"],
    },
)
