"""The site's settings, for Sphinx. It is built and read without network.

Sphinx with furo and MyST: plain Markdown that GitHub shows as well, an API reference from
docstrings, every link and anchor between pages checked by the build itself, and a theme for light,
dark and phones that loads nothing from elsewhere.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(Path(__file__).parent / "_ext"), str(ROOT)]

project = "nanodet-d2"
copyright = "the authors of nanodet-d2, Apache-2.0"
author = "the authors of nanodet-d2"
_version = re.search(r'__version__ = "(.+?)"', (ROOT / "nanodet_d2/__init__.py").read_text())
assert _version is not None
version = release = _version[1]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "generated"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_ext", "_build"]
nitpicky = False  # signatures name types of torch, whose pages are elsewhere
suppress_warnings: list[str] = []

myst_enable_extensions = ["colon_fence", "deflist", "attrs_block"]
myst_heading_anchors = 3

# Stood in for, so that the site is built in seconds and without them.
autodoc_mock_imports = [
    *("cloudpickle", "cv2", "detectron2", "fvcore", "hydra", "iopath", "matplotlib", "numpy"),
    *("omegaconf", "PIL", "pycocotools", "timm", "torch", "torchvision", "tqdm", "yaml"),
]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = "nanodet-d2"
html_static_path: list[str] = []
html_show_sourcelink = False

# The browser demo, which `make docs` builds where there is Node.js: files as they are.
DEMO = ROOT / "output" / "docs_demo"
if (DEMO / "demo" / "index.html").is_file():
    tags.add("demo")  # noqa: F821 (Sphinx gives it)
    html_extra_path = [str(DEMO)]
