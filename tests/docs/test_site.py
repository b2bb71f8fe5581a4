"""The built site in headless Chromium: each page, light and dark, on a phone and a desktop."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.mark.slow
def test_no_page_has_errors_or_overflows(root):
    site = root / "output" / "docs"
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    node, packages = shutil.which("node"), root / "projects/nanodet_plus/web/node_modules"
    if not site.is_dir():
        pytest.skip("the site is not built: run `make docs`")
    if not (browser and node and packages.is_dir()):
        pytest.skip("no Chromium, no Node.js, or not the packages of the browser demo: `make web`")
    pages = [x.as_uri() for x in sorted(site.rglob("*.html"))]
    screenshots = root / "output" / "docs_screenshots"
    screenshots.mkdir(exist_ok=True)
    options = {"chromium": browser, "pages": pages, "screenshots": str(screenshots)}
    done = subprocess.run(
        [node, str(Path(__file__).with_name("site.mjs")), json.dumps(options)],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []
