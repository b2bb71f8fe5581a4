"""What users call first has an example in its docstring, and the examples run."""

from __future__ import annotations

import doctest
import inspect
from typing import Any

import pytest

from nanodet_d2 import checkpoint, config, modeling, predictor, runtime, zoo
from nanodet_d2.checkpoint import convert

FIRST = [
    *(runtime.Detector, runtime.Detections, runtime.Tiles, predictor.Detector),
    *(zoo.get, zoo.get_config, config.get_config, config.apply_overrides, config.LazyPartial),
    *(checkpoint.load_weights, checkpoint.read_card),
    *(convert.convert_to_detectron2, convert.convert_to_reference, modeling.NanoDetPlus),
]


def name_of(called: Any) -> str:
    return f"{called.__module__}.{called.__name__}"


@pytest.mark.parametrize("called", FIRST, ids=name_of)
def test_has_an_example_that_imports_what_it_shows(called):
    code = example_of(called)
    compile(code, name_of(called), "exec")
    assert called.__name__ in code
    imported = [line for line in code.splitlines() if line.startswith("from nanodet_d2")]
    assert imported, "a reader has to know where it comes from"


@pytest.mark.slow
@pytest.mark.parametrize("called", FIRST, ids=name_of)
def test_example_runs(called, reader, capsys):
    exec(compile(example_of(called), name_of(called), "exec"), {})


def example_of(called: Any) -> str:
    """The lines of an example; what it prints depends on the model, and is not shown."""
    found = doctest.DocTestParser().get_examples(inspect.getdoc(called) or "")
    assert found, f"{name_of(called)} has no example"
    return "".join(x.source for x in found)
