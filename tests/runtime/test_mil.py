"""What a Core ML program's operations compute, by hand, and the file that they are read from."""

from __future__ import annotations

import shutil
import types

import numpy as np
import pytest
import torch

from nanodet_d2.data.shapes import draw_picture
from nanodet_d2.runtime import Detector
from nanodet_d2.runtime.backends import mil, open_backend

KNOWN = mil.operations()


def numbers(*shape: int) -> torch.Tensor:
    return torch.arange(1, 1 + np.prod(shape), dtype=torch.float32).reshape(shape)


def test_interleaved_channels_take_turns():
    a, b = numbers(1, 2, 1, 1), 10 * numbers(1, 2, 1, 1)
    found = KNOWN["concat"]([a, b], axis=1, interleave=True)
    assert found.flatten().tolist() == [1, 10, 2, 20]
    found = KNOWN["concat"]([a, b], axis=1, interleave=False)
    assert found.flatten().tolist() == [1, 2, 10, 20]


def test_padding_is_upper_lower_left_right():
    pooled = dict(kernel_sizes=[1, 1], strides=[1, 1], pad_type="custom", ceil_mode=False)
    found = KNOWN["max_pool"](numbers(1, 1, 1, 1), pad=[1, 0, 0, 2], **pooled)
    assert found.shape == (1, 1, 2, 3)
    assert found[0, 0, 1].tolist() == [1, -np.inf, -np.inf]
    ones = torch.ones(1, 1, 2, 2)
    conv = dict(weight=ones, strides=[1, 1], dilations=[1, 1], groups=1, bias=torch.ones(1))
    found = KNOWN["conv"](numbers(1, 1, 2, 2), pad_type="custom", pad=[1, 0, 0, 0], **conv)
    assert found[0, 0].tolist() == [[4], [11]]  # 1 + 2 + bias; all four + bias
    found = KNOWN["conv"](numbers(1, 1, 2, 2), pad_type="valid", pad=[9, 9, 9, 9], **conv)
    assert found[0, 0].tolist() == [[11]]
    with pytest.raises(ValueError, match="pad_type same"):
        KNOWN["conv"](numbers(1, 1, 2, 2), pad_type="same", pad=[0, 0, 0, 0], **conv)


def test_slices_go_to_the_ends_where_a_mask_says_so():
    x = numbers(2, 3)
    found = KNOWN["slice_by_index"](x, [1, 1], [0, 2], end_mask=[True, False])
    assert found.tolist() == [[5]]
    found = KNOWN["slice_by_index"](x, [1, 1], [2, 3], begin_mask=[True, False])
    assert found.tolist() == [[2, 3], [5, 6]]


def test_the_others():
    x = torch.tensor([-2.0, 0.0, 4.0])
    assert KNOWN["leaky_relu"](x, alpha=0.5).tolist() == [-1, 0, 4]
    assert KNOWN["sigmoid_hard"](x, alpha=0.25, beta=0.5).tolist() == [0, 0.5, 1]
    assert KNOWN["clip"](x, alpha=-1.0, beta=1.0).tolist() == [-1, 0, 1]
    assert KNOWN["reduce_mean"](numbers(1, 2, 2), axes=[1, 2], keep_dims=True).tolist() == [[[2.5]]]
    assert [x.tolist() for x in KNOWN["split"](numbers(3), split_sizes=[1, 2], axis=0)] == [
        [1],
        [2, 3],
    ]
    found = KNOWN["upsample_bilinear"](numbers(1, 1, 1, 2), 1.0, 2.0, align_corners=False)
    assert found.flatten().tolist() == [1, 1.25, 1.75, 2]


@pytest.mark.slow
def test_a_file_is_a_folder_that_may_be_copied(small_models, tmp_path):
    path = tmp_path / "m.mlpackage"
    shutil.copytree(small_models.file("coreml"), path)
    weights = path / "Data" / "com.apple.CoreML" / "weights" / "weight.bin"
    assert type(open_backend(path)).size(path) > weights.stat().st_size > 1000
    image = draw_picture(0, "val", 0, 120)[0]
    expected = Detector(small_models.file("coreml")).raw(image)["output"]
    np.testing.assert_array_equal(Detector(path).raw(image)["output"], expected)
    with pytest.raises(FileNotFoundError, match="absent.mlpackage not found"):
        Detector(tmp_path / "absent.mlpackage")


def test_an_operation_that_is_not_known_is_named(monkeypatch):
    load = pytest.importorskip("coremltools.converters.mil.frontend.milproto.load")
    operation = types.SimpleNamespace(op_type="gru")
    function = types.SimpleNamespace(inputs={"data": None}, outputs=[], operations=[operation])
    program = types.SimpleNamespace(functions={"main": function})
    monkeypatch.setattr(load, "load", lambda *_, **__: program)
    spec = types.SimpleNamespace(specificationVersion=7)
    model = types.SimpleNamespace(get_spec=lambda: spec, weights_dir="")
    with pytest.raises(ValueError, match="m.mlpackage has operations gru, .*--no-verify"):
        mil.Program(model, "m.mlpackage", None)
