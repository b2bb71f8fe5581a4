"""Shared by the golden tests of both generations."""

from __future__ import annotations

import copy

import pytest

from nanodet_d2.modeling import NanoDetPlus


@pytest.fixture
def model(filled_model) -> NanoDetPlus:
    """A copy of the module's filled model, since training changes the norms' statistics."""
    return copy.deepcopy(filled_model)
