"""Fixtures of the tests of exports."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from nanodet_d2.data.shapes import CLASS_NAMES
from nanodet_d2.export.job import Job
from nanodet_d2.export.loading import LoadedModel
from tests.small_models import SMALL, isolated, require_format


@pytest.fixture
def make_job(tmp_path, small_models):
    """A model with random weights whose norms and scores are not trivial, and a job for it."""

    def make(
        *,
        formats: Sequence[str] = ("torchscript",),
        config: str = SMALL,
        classes: int | None = None,
        size: tuple[int, int] = (96, 64),
        overrides: Sequence[str] = (),
        **options,
    ) -> tuple[LoadedModel, Job]:
        for format in formats:
            require_format(format)
        names = CLASS_NAMES if classes is None else tuple(f"thing{i}" for i in range(classes))
        loaded = small_models.loaded(
            config=config, names=names, size=size, overrides=tuple(overrides)
        )
        apart = any(map(isolated, formats))
        folder = tmp_path / "exported"
        return loaded, Job(formats=tuple(formats), output=folder, isolated=apart, **options)

    return make
