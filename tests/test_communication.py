"""The estimate of communication, against figures worked out by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scripts import load_script

BENCHMARKS = Path(__file__).parents[1] / "projects" / "nanodet_plus" / "benchmarks"
communication = load_script(BENCHMARKS / "communication.py")
all_reduce_ms, buckets = communication.all_reduce_ms, communication.buckets
step_ms = communication.step_ms

GBIT_25, LATENCY = 3.125e9, 30e-6


def test_sixty_four_gpus():
    """8 hosts: 9.5 ms by ring, 0.85 ms and 0.18 ms by tree, as in DISTRIBUTED.md."""
    parts = buckets(4 * 4_330_904)
    assert parts == [2**20, 17_323_616 - 2**20]
    assert all_reduce_ms(parts[1], 64, GBIT_25, LATENCY) == pytest.approx(9.534, abs=1e-3)
    assert all_reduce_ms(parts[0], 64, GBIT_25, LATENCY) == pytest.approx(0.851, abs=1e-3)
    assert all_reduce_ms(12, 64, GBIT_25, LATENCY) == pytest.approx(0.18, abs=1e-3)
    assert step_ms(parts, 64, GBIT_25, LATENCY) == pytest.approx(10.57, abs=0.01)


def test_two_and_one():
    assert all_reduce_ms(10**6, 2, 1e9, 0.0) == pytest.approx(1.0)  # each sends half, twice
    assert all_reduce_ms(10**6, 1, 1e9, 1.0) == 0.0


def test_buckets_keep_all_bytes():
    for size in (1, 2**20, 2**20 + 1, 26 * 2**20, 200 * 2**20):
        assert sum(buckets(size)) == size
        assert max(buckets(size)) <= 25 * 2**20
