"""ONNX files for TensorRT, whose last node is its plugin for NMS.

TensorRT itself is not used here. What comes before the plugin is run by ONNX Runtime, and NMS is
that of all other files: so such a file is checked, and scored, where there is no such GPU.
"""

from __future__ import annotations

from .onnx import OnnxRuntime

PLUGIN = "EfficientNMS_TRT"


class TensorRtOnnx(OnnxRuntime):
    format = "tensorrt"
    name = "onnxruntime before the plugin"
    package = "onnx"
    stands_in = True
    suffix = ".tensorrt.onnx"

    def __init__(self, path: str, num_threads: int | None, device: str):
        super().__init__(before_plugin(path), num_threads, device)


def before_plugin(path: str) -> bytes:
    """An ONNX file without the plugin; its outputs are the boxes and scores that it would get.

    Raises:
        ValueError: for a file without the plugin, or that is no ONNX file.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(path)
    except DecodeError as error:
        raise ValueError(f"{path} is no ONNX file: {error}") from error
    graph = model.graph
    plugins = [node for node in graph.node if node.op_type == PLUGIN]
    if len(plugins) != 1:
        raise ValueError(f"{path} has {len(plugins)} nodes {PLUGIN}; allowed: 1")
    graph.node.remove(plugins[0])
    del graph.output[:]
    floats = onnx.TensorProto.FLOAT
    graph.output.extend(
        onnx.helper.make_tensor_value_info(name, floats, None) for name in plugins[0].input
    )
    return model.SerializeToString()
