"""Fixtures of the tests of exports."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from nanodet_d2.export.builder import WRITER_PACKAGES, Job
from nanodet_d2.export.runtimes import PACKAGES

from tests.export.small_models import CONFIGS, SMALL, random_state, require


@pytest.fixture
def make_job(tmp_path):
    """A job for a config with random weights whose norms and scores are not trivial."""

    def make(
        *,
        formats: Sequence[str] = ("torchscript",),
        config: str = SMALL,
        classes: int = 3,
        size: tuple[int, int] = (96, 64),
        overrides: Sequence[str] = (),
        **options,
    ) -> Job:
        names = ",".join(f"thing{i}" for i in range(classes))
        overrides = (f"data.classes=[{names}]", *overrides)
        for format in formats:
            require(*WRITER_PACKAGES.get(format, ()), PACKAGES.get(format, "torch"))
        path = tmp_path / "model.pth"
        torch.save({"model": random_state(config, overrides)}, path)
        return Job(
            config_file=str(CONFIGS / config),
            checkpoint=str(path),
            formats=tuple(formats),
            output=tmp_path / "exported",
            input_size=size,
            overrides=overrides,
            **options,
        )

    return make
