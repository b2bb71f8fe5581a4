"""The built site in headless Chromium: each page, light and dark, on a phone and a desktop."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from tests.scripts import load_script

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
    demo = site / "demo"  # a page of modules, which browsers run from a server only
    pages = [x.as_uri() for x in sorted(site.rglob("*.html")) if demo not in x.parents]
    server = load_script(root / "projects/nanodet_plus/web/serve.py").make_server(site, 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/"
    if demo.is_dir():
        pages.append(f"{url}demo/index.html")
    screenshots = root / "output" / "docs_screenshots"
    screenshots.mkdir(exist_ok=True)
    options = {
        "chromium": browser,
        "pages": pages,
        "server": url,
        "screenshots": str(screenshots),
    }
    try:
        done = subprocess.run(
            [node, str(Path(__file__).with_name("site.mjs")), json.dumps(options)],
            capture_output=True,
            text=True,
            timeout=600,
        )
    finally:
        server.shutdown()
        server.server_close()
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []
