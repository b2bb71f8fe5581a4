"""Processes that have imported everything when they start: that takes longer than the rest."""

from __future__ import annotations

import multiprocessing

forks = multiprocessing.get_context("forkserver")
forks.set_forkserver_preload(["nanodet_d2.engine"])
