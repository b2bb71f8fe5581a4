"""ncnn."""

from __future__ import annotations

import numpy as np

from .base import Backend


class Ncnn(Backend):
    """The split blobs come as one raw output: ``cls8`` (C, H, W), ``dis8`` (H, W, 4 * (R + 1))…,
    or, as the reference's files before NanoDet-Plus have them, without names to go by, (H * W, C)
    and (H * W, 4 * (R + 1)) of each level in turn."""

    format = "ncnn"
    name = "ncnn"
    suffix = ".ncnn.param"
    other_suffixes = (".param",)  # e.g. the reference's
    weights_suffix = ".bin"

    def __init__(self, path: str, num_threads: int | None, device: str):
        import ncnn

        self._ncnn = ncnn
        self.net = ncnn.Net()
        if num_threads:
            self.net.opt.num_threads = num_threads
        weights = str(self.files(path)[1])
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
        if not strides:
            outputs = list(blobs.values())
            return np.concatenate(
                [np.concatenate(pair, axis=1) for pair in zip(outputs[::2], outputs[1::2])]
            )
        levels = []
        for stride in strides:
            scores, box_logits = blobs[f"cls{stride}"], blobs[f"dis{stride}"]
            scores = scores.reshape(len(scores), -1).T  # (H * W, C)
            box_logits = box_logits.reshape(-1, box_logits.shape[-1])
            levels.append(np.concatenate([scores, box_logits], axis=1))
        return np.concatenate(levels)
