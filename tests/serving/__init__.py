"""Tests of the server; left out, with the reason, where its packages are not installed."""

from __future__ import annotations

import importlib.util

import pytest

PACKAGES = ("starlette", "uvicorn", "python_multipart", "prometheus_client")
missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
if missing:
    pytest.skip(
        f"{', '.join(missing)} not installed: pip install 'nanodet-d2[serve]'",
        allow_module_level=True,
    )
