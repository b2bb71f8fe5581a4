"""Files of the official NanoDet-m, and the ncnn file that its authors made."""

from __future__ import annotations

import pytest

from nanodet_d2.benchmark.measure import average_precision
from nanodet_d2.export.formats import find_format
from nanodet_d2.export.job import Job
from nanodet_d2.export.loading import LoadedModel, load_model
from nanodet_d2.export.verify import DETECTIONS
from nanodet_d2.export.writer import export
from nanodet_d2.runtime import Detector
from nanodet_d2.runtime.backends import backend_of
from tests.small_models import formats_here, isolated, require_format

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def official(shared, root) -> LoadedModel:
    config = root / "projects" / "nanodet" / "configs" / "nanodet_m_320.py"
    return load_model(str(config), str(shared / "weights" / "nanodet_m_320.pth"))


@pytest.mark.parametrize("kind", ["raw", "decoded", "end2end"])
def test_all_formats(official, shared, tmp_path, kind):
    require_format("onnx")
    able = (
        ["onnx"]
        if kind == "end2end"
        else [x for x in formats_here(kind) if find_format(x).fits_images]
    )
    job = Job(
        formats=tuple(able),
        output=tmp_path,
        kind=kind,
        images=(shared / "coco_tiny" / "val2017",),
        isolated=any(map(isolated, able)),
    )
    for written in export(official, job):
        (found,) = [x for x in written.differences if x.output == DETECTIONS]
        assert found.compared > 20, written.path
        assert all(x.value <= x.allowed for x in written.differences)


def test_our_ncnn_file_scores_as_the_official_one(official, shared, tmp_path):
    require_format("ncnn")
    (ours,) = export(official, Job(("ncnn",), tmp_path, fp16=True))
    described = backend_of(ours.path).metadata_path(ours.path)
    theirs = Detector(shared / "weights" / "nanodet_m.param", metadata=described)
    data = shared / "coco_tiny" / "annotations" / "instances_val2017.json"
    pictures = shared / "coco_tiny" / "val2017"
    ap = [average_precision(x, data, pictures) for x in (Detector(ours.path), theirs)]
    assert ap[1] > 25
    assert ap[0] == pytest.approx(ap[1], abs=0.1)
