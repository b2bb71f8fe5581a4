"""Which file is shipped, and what is said of it."""

from __future__ import annotations

import math

import pytest

from nanodet_d2.shipping.choosing import (
    Budget,
    Measured,
    affordable,
    doubts,
    front,
    of_rounds,
    shortfall,
)
from nanodet_d2.shipping.command import choose


def one(name, ms, ap, size=1000, noise=0.1) -> Measured:
    return Measured(name, ms, noise, ap, size)


A = one("a", 5.0, 30.0, 1000)
B = one("b", 7.0, 33.0, 1010)  # as small as a, but for a percent
C = one("c", 9.0, 36.0, 2000)
D = one("d", 8.0, 32.0, 500)  # slower and worse than b
ALL = [C, A, D, B]
BUDGET = Budget(max_ms=8.0, max_ap_drop=4.0, reference_ap=36.5)


def names(measured) -> str:
    return "".join(x.name for x in measured)


def test_the_front_is_what_no_other_beats():
    assert names(front(ALL)) == "abc"
    assert front([]) == []
    equal = [one("slow", 2.0, 30.0), one("fast", 1.0, 30.0), one("large", 1.0, 30.0, 2000)]
    assert names(front(equal)) == "fast"


def test_the_smallest_that_meets_the_budget_comes_first():
    assert names(affordable(ALL, BUDGET)) == "b"  # d loses 4.5, c takes 9 ms
    loose = Budget(None, 10.0, 36.5)
    assert names(affordable(ALL, loose)) == "dbac"  # b before a, which is as small: more AP
    assert names(affordable([A, one("z", 4.0, 30.0, 1000)], loose)) == "za"  # then the faster
    assert affordable([], BUDGET) == []


def test_a_bound_that_is_just_met_is_met():
    assert names(affordable([one("x", 8.0, 32.5)], BUDGET)) == "x"


@pytest.mark.parametrize(
    "budget, words",
    [
        (Budget(6.0, 4.0, 36.5),
         "the fastest that loses at most 4 AP, b, takes 7.00 ms, 1.00 too many; the best within 6 "
         "ms, a, loses 6.50 AP, 2.50 too many"),
        (Budget(4.0, 4.0, 36.5),
         "the fastest that loses at most 4 AP, b, takes 7.00 ms, 3.00 too many; none takes at "
         "most 4 ms: the fastest, a, takes 5.00, 1.00 too many"),
        (Budget(8.0, 0.25, 36.5),
         "none loses at most 0.25 AP: the best, c, has 36.00, 0.25 too few; the best within 8 ms, "
         "b, loses 3.50 AP, 3.25 too many"),
        (Budget(None, 0.25, 36.5), "none loses at most 0.25 AP: the best, c, has 36.00, 0.25 too "
         "few"),
    ],
)  # fmt: skip
def test_which_bound_fails_and_by_how_much(budget, words):
    assert affordable(ALL, budget) == [] and shortfall(ALL, budget) == words


def test_times_of_rounds():
    rounds = [[9.0, 10.0, 50.0], [11.0, 11.0, 11.0], [12.0, 13.0, 12.0]]
    middle, noise = of_rounds(rounds)
    assert middle == 11.0  # of 10, 11 and 12
    assert noise == pytest.approx(2 * 1.0 / math.sqrt(3))
    assert of_rounds([[1.0, 3.0]]) == (2.0, float("inf"))
    assert of_rounds([[1.0], [1.0]]) == (1.0, 0.0)


def test_what_is_met_only_within_the_noise_is_said():
    x = one("x", 7.95, 32.75, noise=0.1)
    assert doubts(x, BUDGET, 0.1, 80) == ["8 ms are kept only within the noise: 7.95 ± 0.10"]
    (first, second) = doubts(x, BUDGET, 0.3, 80)
    assert second == ("a loss of 4 AP is kept only within the noise of 80 pictures: 3.75 ± 0.30")
    assert doubts(one("x", 5.0, 36.0), BUDGET, 0.3, 80) == []
    assert doubts(one("x", 99.0, 36.0), Budget(None, 4.0, 36.5), 0.3, 80) == []


def chosen(measured, budget, again):
    return choose(
        measured, budget, afresh=lambda name: again[name], ap_noise=lambda name: 0.2, pictures=80
    )


def test_what_no_longer_meets_the_budget_is_not_shipped():
    budget = Budget(8.0, 7.0, 36.5)
    measured = [A, B, one("e", 6.0, 34.0, 1500)]
    again = {"b": one("b", 8.2, 33.0), "a": one("a", 5.1, 30.0), "e": one("e", 6.0, 34.0)}
    verdict = chosen(measured, budget, again)
    assert verdict.shipped is again["a"] and verdict.ap_noise == 0.2
    assert verdict.words[0] == (
        "b took 7.00 ms, and 8.20 when it was measured afresh, 0.20 too many"
    )
    slow = {name: one(name, 9.0, x.ap) for name, x in again.items()}
    verdict = chosen(measured, budget, slow)
    assert verdict.shipped is None and len(verdict.words) == 3
    verdict = chosen(measured, Budget(1.0, 7.0, 36.5), again)
    assert verdict.shipped is None and verdict.words[0].startswith("no candidate meets the budget")
