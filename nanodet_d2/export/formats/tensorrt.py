"""ONNX files for TensorRT and DeepStream: static shapes, pixels in, detections out."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from nanodet_d2.runtime.backends.tensorrt import PLUGIN, TensorRtOnnx
from nanodet_d2.runtime.metadata import ExportMetadata

from ..deepstream import OUTPUTS, nvinfer_config
from .base import Format, Material
from .onnx import Onnx, save_onnx

DOMAIN = "TRT"  # of what ONNX does not know; TensorRT finds its plugins by their names alone


class TensorRtFormat(Format):
    """The normalisation is in the graph, as DeepStream has one scale for all three channels. After
    decoding comes TensorRT's plugin ``EfficientNMS_TRT`` (TensorRT,
    plugin/efficientNMSPlugin/README.md).
    """

    backend = TensorRtOnnx
    packages = Onnx.packages
    has_nms = True
    fits_images = False  # DeepStream pads them with black, a training with the mean colour

    def describe(self, metadata: ExportMetadata) -> ExportMetadata:
        """What the graph is before the plugin, of pixels as they are."""
        pixels = dataclasses.replace(metadata.input, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
        before = dataclasses.replace(metadata, kind="decoded", input=pixels)
        return before.with_outputs(self.outputs("decoded", ()))

    def write(
        self, products: Material, path: Path, metadata: ExportMetadata, *, fp16: bool, int8: bool
    ) -> None:
        described = products.metadata.input
        model = products.onnx(metadata)
        normalise(model, described.mean, described.std)
        add_plugin(model, metadata)
        save_onnx(model, path, metadata)
        stem = str(path).removesuffix(".onnx")
        labels, config = Path(f"{stem}.labels.txt"), Path(f"{stem}.nvinfer.txt")
        labels.write_text("".join(f"{name}\n" for name in metadata.class_names), encoding="utf-8")
        config.write_text(nvinfer_config(metadata, path.name, labels.name), encoding="utf-8")


def normalise(model: Any, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    """Let an ``onnx.ModelProto`` take pixels in [0, 255] where it takes normalised ones.

    As nodes of their own: in the first convolution's weights they would be wrong at the borders,
    whose padding is of normalised zeros.
    """
    import numpy as np
    from onnx import helper, numpy_helper

    graph = model.graph
    (given,) = (x.name for x in graph.input)
    for node in graph.node:
        node.input[:] = ["normalised" if name == given else name for name in node.input]
    for name, values in (("mean", mean), ("std", std)):
        array = np.array(values, dtype=np.float32).reshape(1, 3, 1, 1)
        graph.initializer.append(numpy_helper.from_array(array, f"pixel_{name}"))
    graph.node.insert(0, helper.make_node("Sub", [given, "pixel_mean"], ["centred"]))
    graph.node.insert(1, helper.make_node("Div", ["centred", "pixel_std"], ["normalised"]))


def add_plugin(model: Any, metadata: ExportMetadata) -> None:
    """End an ``onnx.ModelProto`` of boxes and scores with NMS."""
    from onnx import TensorProto, helper

    graph, most = model.graph, metadata.max_detections
    graph.node.append(
        helper.make_node(
            PLUGIN,
            list(metadata.outputs),
            list(OUTPUTS),
            domain=DOMAIN,
            plugin_version="1",
            score_threshold=metadata.score_threshold,
            iou_threshold=metadata.nms_threshold,
            max_output_boxes=most,
            background_class=-1,  # there is none
            score_activation=0,  # the scores are after the sigmoid
            class_agnostic=0,
            box_coding=0,  # corners
        )
    )
    del graph.output[:]
    shapes = [(1, 1), (1, most, 4), (1, most), (1, most)]
    types = [TensorProto.INT32, TensorProto.FLOAT, TensorProto.FLOAT, TensorProto.INT32]
    for name, kind, shape in zip(OUTPUTS, types, shapes):
        graph.output.append(helper.make_tensor_value_info(name, kind, shape))
    model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
