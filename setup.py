"""Which packages a wheel holds; what the project is and needs stands in pyproject.toml.

The configs lie beside the package in a checkout; a wheel has them inside, as `nanodet_d2.configs`.
"""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent
CONFIGS = "nanodet_d2.configs"


def config_packages() -> dict:
    """Maps package names onto the folders of configs.

    They have no __init__.py (lazy config files are loaded by path), so `find_packages` skips them.
    """
    folders = {CONFIGS: ROOT / "configs"}
    for folder in ROOT.glob("projects/*/configs"):
        folders[f"{CONFIGS}.{folder.parent.name}"] = folder
    packages = {}
    for package, folder in folders.items():
        for path in {file.parent for file in folder.rglob("*.py")} | {folder}:
            name = ".".join((package, *path.relative_to(folder).parts))
            packages[name] = path.relative_to(ROOT).as_posix()
    return packages


PACKAGES = config_packages()

setup(
    packages=find_packages(include=("nanodet_d2", "nanodet_d2.*")) + sorted(PACKAGES),
    package_dir=PACKAGES,
)
