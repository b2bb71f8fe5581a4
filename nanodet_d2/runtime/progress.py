"""A progress bar with the time that is left: tqdm's, or none where it is not installed."""

from __future__ import annotations

import contextlib
from typing import Any


class _NoBar:
    """What is used of tqdm's bar."""

    def update(self, n: int = 1) -> None: ...

    def set_postfix_str(self, text: str, refresh: bool = True) -> None: ...


def progress(total: int | None, *, unit: str) -> contextlib.AbstractContextManager[Any]:
    """A bar over ``total`` units; over an unknown number if None."""
    try:
        from tqdm import tqdm
    except ImportError:
        return contextlib.nullcontext(_NoBar())
    return tqdm(total=total, unit=unit)
