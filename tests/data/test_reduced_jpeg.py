"""JPEG files that are decoded at a fraction of their size give the same samples, nearly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.structures import BoxMode
from PIL import Image

from nanodet_d2.data import DetectionMapper, ImageCache, RandomWarp
from nanodet_d2.data.images import read_image

SIDEWAYS = 6  # EXIF orientation: turn by 90 degrees


@pytest.fixture(params=[None, SIDEWAYS])
def record(request, tmp_path) -> dict:
    """A smooth image of 640 x 480 pixels as shown, with one box."""
    y, x = np.mgrid[0:480, 0:640]
    shown = np.stack([x / 640, y / 480, (x + y) / 1120], axis=2)
    shown = (255 * shown).astype(np.uint8)
    exif = Image.Exif()
    if request.param:
        exif[0x0112] = request.param
        shown = np.rot90(shown)
    Image.fromarray(shown).save(tmp_path / "a.jpg", exif=exif, quality=95, subsampling=0)
    box = {"bbox": [64, 96, 320, 240], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0}
    return {"file_name": str(tmp_path / "a.jpg"), "annotations": [box]}


@pytest.mark.parametrize(
    ("at_least", "shape"),
    [
        ((480, 640), (480, 640, 3)),
        ((241, 320), (480, 640, 3)),
        ((240, 320), (240, 320, 3)),
        ((160, 160), (240, 320, 3)),
        ((60, 80), (60, 80, 3)),
        ((10, 10), (60, 80, 3)),
    ],
)
def test_is_as_large_as_wanted(record, at_least, shape):
    assert read_image(record, "BGR", at_least=at_least).shape == shape
    assert (record["height"], record["width"]) == (480, 640)


def test_samples_stay_nearly_the_same(record):
    arguments = dict(is_train=True, augmentations=[RandomWarp((120, 160))])
    whole = DetectionMapper(**arguments)(record)
    reduced = DetectionMapper(**arguments, reduced_jpeg=True)(record)
    assert torch.equal(reduced["instances"].gt_boxes.tensor, torch.tensor([[16.0, 24, 80, 60]]))
    assert torch.equal(whole["instances"].gt_boxes.tensor, reduced["instances"].gt_boxes.tensor)
    difference = (whole["image"].float() - reduced["image"].float()).abs()
    assert difference.max() <= 4  # a grey level is 2.5 pixels wide here
    assert (reduced["height"], reduced["width"]) == (480, 640)


def test_a_wrong_size_is_still_found(record):
    with pytest.raises(ValueError, match="Mismatched image shape"):
        read_image({**record, "height": 240, "width": 320}, "BGR", at_least=(10, 10))


def test_a_cache_wants_whole_images():
    mapper = DetectionMapper(is_train=True, augmentations=[], reduced_jpeg=True)
    with pytest.raises(ValueError, match="reduced_jpeg has to be false"):
        mapper.with_cache(ImageCache(storage="ram", gigabytes=1))
