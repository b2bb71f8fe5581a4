"""The runtimes of exported files behind one call: arrays in, arrays out.

Each is imported when it is asked for. Letters: N images, P priors, C classes, R reg_max.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .metadata import METADATA_KEY, format_of

# format -> import name of what runs its files
PACKAGES = {
    "onnx": "onnxruntime",
    "openvino": "openvino",
    "ncnn": "ncnn",
    "torchscript": "torch",
}


def require_threads(count: int | None) -> None:
    """Raise ``ValueError`` for a number of threads below 1; None leaves the choice."""
    if count is not None and count < 1:
        raise ValueError(f"num_threads {count}; allowed: 1 or more")


def require_packages(packages: Iterable[str], purpose: str) -> None:
    """Raise ``ValueError`` naming the optional packages that are not installed, all at once."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(
            f"{purpose} needs {', '.join(missing)}, not installed here: "
            "pip install nanodet-d2[export]"
        )


@contextlib.contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """In here torch computes with so many threads; as many as before if None.

    The number is one of the whole process, so it is that of its other threads, too, in the
    meantime. It is restored afterwards.
    """
    import torch

    before = torch.get_num_threads()
    if count is None or count == before:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def open_model(path: str | Path, *, num_threads: int | None = None) -> Runtime:
    """The runtime of a file's format, with the file loaded.

    A TorchScript file is a program, which this runs: open only files that you trust, however they
    are verified otherwise. The other formats describe a graph of known operators.

    Args:
        num_threads: of the runtime, 1 or more; its own choice if None.

    Raises:
        ValueError: for an unknown name, a number of threads below 1, or a missing package.
        FileNotFoundError: if there is no such file.
    """
    format = format_of(path)
    require_threads(num_threads)
    require_packages([PACKAGES[format]], f"running {path}")
    if not Path(path).is_file():
        raise FileNotFoundError(f"exported file {path} not found")
    return _RUNTIMES[format](str(path), num_threads)


class Runtime:
    """A loaded file.

    Attributes:
        backend: name of what runs it.
        embedded: the metadata json inside the file, if any.
    """

    backend: str
    embedded: str | None = None

    def __call__(self, data: np.ndarray) -> list[np.ndarray]:
        """The outputs, in the metadata's order, for the input: (N, 3, H, W) float32, normalised,
        or of an end2end file an image (H, W, 3) uint8."""
        raise NotImplementedError


class OnnxRuntime(Runtime):
    backend = "onnxruntime"

    def __init__(self, path: str, num_threads: int | None):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads or 0
        options.log_severity_level = 3  # its warnings are about nodes that it can do without
        self.session = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"]
        )
        self.input_name = self.session.get_inputs()[0].name
        self.embedded = self.session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)

    def __call__(self, data: np.ndarray) -> list[np.ndarray]:
        return self.session.run(None, {self.input_name: data})


class OpenVino(Runtime):
    backend = "openvino"

    def __init__(self, path: str, num_threads: int | None):
        import openvino

        core = openvino.Core()
        model = core.read_model(path)
        if model.has_rt_info([METADATA_KEY]):
            self.embedded = model.get_rt_info([METADATA_KEY]).value
        # float32 on processors, too, whose matrix units would otherwise compute in bfloat16
        options: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        if num_threads:
            options["INFERENCE_NUM_THREADS"] = num_threads
        self.model = core.compile_model(model, "CPU", options)
        self.request = self.model.create_infer_request()

    def __call__(self, data: np.ndarray) -> list[np.ndarray]:
        results = self.request.infer([data], share_inputs=True)
        return [results[output].copy() for output in self.model.outputs]


class Ncnn(Runtime):
    """The split blobs come as one raw output, ``cls8`` (C, H, W), ``dis8`` (H, W, 4 * (R + 1))…"""

    backend = "ncnn"

    def __init__(self, path: str, num_threads: int | None):
        import ncnn

        self._ncnn = ncnn
        self.net = ncnn.Net()
        if num_threads:
            self.net.opt.num_threads = num_threads
        weights = path.removesuffix(".param") + ".bin"
        if self.net.load_param(path) or self.net.load_model(weights):
            raise ValueError(f"ncnn cannot load {path} and {weights}")

    def __call__(self, data: np.ndarray) -> list[np.ndarray]:
        return [np.stack([self._one(image) for image in data])]

    def blobs(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """All output blobs for one input (3, H, W)."""
        extractor = self.net.create_extractor()
        # Mat refers to the array's memory, which outlives the extractor here
        extractor.input(self.net.input_names()[0], self._ncnn.Mat(np.ascontiguousarray(image)))
        names = self.net.output_names()
        return {name: np.array(extractor.extract(name)[1]) for name in names}

    def _one(self, image: np.ndarray) -> np.ndarray:
        blobs = self.blobs(image)
        strides = sorted(int(name[3:]) for name in blobs if name.startswith("cls"))
        levels = []
        for stride in strides:
            scores, box_logits = blobs[f"cls{stride}"], blobs[f"dis{stride}"]
            scores = scores.reshape(len(scores), -1).T  # (H * W, C)
            box_logits = box_logits.reshape(-1, box_logits.shape[-1])
            levels.append(np.concatenate([scores, box_logits], axis=1))
        return np.concatenate(levels)


class TorchScript(Runtime):
    """Runs a program that lies in the file: torch does not limit what it may do."""

    backend = "torchscript"

    def __init__(self, path: str, num_threads: int | None):
        import torch

        self._torch, self._threads = torch, num_threads
        extra = {METADATA_KEY: ""}
        self.module = torch.jit.load(path, map_location="cpu", _extra_files=extra)
        found = extra[METADATA_KEY]
        self.embedded = found.decode() if isinstance(found, bytes) else found

    def __call__(self, data: np.ndarray) -> list[np.ndarray]:
        with torch_threads(self._threads), self._torch.inference_mode():
            outputs = self.module(self._torch.from_numpy(data))
        outputs = outputs if isinstance(outputs, (tuple, list)) else (outputs,)
        return [x.numpy() for x in outputs]


_RUNTIMES = {
    "onnx": OnnxRuntime,
    "openvino": OpenVino,
    "ncnn": Ncnn,
    "torchscript": TorchScript,
}
