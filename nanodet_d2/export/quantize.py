"""INT8 after training: ranges of activations are measured on pictures, nothing is trained.

The convolutions that predict, and all that follows them (sigmoid, decoding, NMS), stay in float.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

logger = logging.getLogger(__name__)

BEFORE_NETWORK = "network/"  # prefix of the network's own nodes in an end2end graph


def quantize_onnx(model: Any, samples: Sequence[np.ndarray], input_name: str) -> Any:
    """An ``onnx.ModelProto`` with its convolutions in INT8, by ONNX Runtime's quantiser (QDQ).

    Args:
        model: a raw or decoded network.
        samples: inputs (1, 3, H, W), normalised.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantType, quantize_static

    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, str(source))
        quantize_static(
            str(source),
            str(target),
            _reader(samples, input_name),
            per_channel=True,
            op_types_to_quantize=["Conv"],
            nodes_to_exclude=_float_nodes_onnx(model),
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            # A range is the mean over pictures of their smallest and largest values, which cuts
            # off what is rare. (The constant of a moving mean counts only where the calibrator is
            # fed in several parts.)
            extra_options={"CalibMovingAverage": True},
        )
        return onnx.load(str(target))


def quantize_openvino(model: Any, samples: Sequence[np.ndarray]) -> Any:
    """An ``openvino.Model`` in INT8, by NNCF.

    Args:
        samples: inputs of the model; pictures (H, W, 3) uint8 for an end2end one.
    """
    import nncf

    logging.getLogger("nncf").setLevel(logging.WARNING)  # it lists every node that stays in float
    return nncf.quantize(
        model,
        nncf.Dataset(samples),
        preset=nncf.QuantizationPreset.MIXED,  # as LeakyReLU's outputs are not symmetric
        subset_size=len(samples),
        ignored_scope=nncf.IgnoredScope(names=_float_nodes_openvino(model), validate=False),
    )


def _reader(samples: Sequence[np.ndarray], input_name: str) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._samples = iter(tqdm(samples, desc="calibration", unit="image"))

        def get_next(self) -> dict[str, np.ndarray] | None:
            sample = next(self._samples, None)
            return None if sample is None else {input_name: sample}

    return Reader()


def _float_nodes_onnx(model: Any) -> list[str]:
    """Names of the nodes between the outputs and the last convolutions, which are included."""
    producer = {name: node for node in model.graph.node for name in node.output}
    names: set[str] = set()
    todo = [x.name for x in model.graph.output]
    while todo:
        node = producer.get(todo.pop())
        if node is None or node.name in names:
            continue
        names.add(node.name)
        if node.op_type != "Conv":
            todo += node.input
    return sorted(names)


def _float_nodes_openvino(model: Any) -> list[str]:
    """The same for an ``openvino.Model``, and what lies before the network of an end2end one."""
    nodes = [node for node in model.get_ordered_ops() if node.get_type_name() != "Constant"]
    own = [x.get_friendly_name() for x in nodes]
    end2end = any(name.startswith(BEFORE_NETWORK) for name in own)
    names = {x for x in own if end2end and not x.startswith(BEFORE_NETWORK)}
    seen: set[str] = set()
    todo = list(model.get_results())
    while todo:
        node = todo.pop()
        name = node.get_friendly_name()
        if name in seen or node.get_type_name() == "Constant":
            continue
        seen.add(name)
        if "Convolution" not in node.get_type_name():
            todo += [x.get_node() for x in node.input_values()]
    return sorted(names | seen)
