"""What PyTorch computes, for exported files to be compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from detectron2.modeling import detector_postprocess
from detectron2.structures import Instances
from torchvision.ops import clip_boxes_to_image

from nanodet_d2.modeling import NanoDetPlus
from nanodet_d2.modeling.head import select_detections, unwarp
from nanodet_d2.modeling.head.box_coding import grid_priors
from nanodet_d2.runtime.decode_numpy import select
from nanodet_d2.runtime.metadata import FIT, ExportMetadata
from nanodet_d2.runtime.preprocess import fit_of, stretch, warp

FEW = 10  # detections in all images, fewer than which compare next to nothing
CANDIDATES = 100  # for each image, that a lowered threshold lets through


class Expected:
    """What PyTorch computes for some images: the model as it is trained, before it is fused.

    Args:
        model: in evaluation mode.
        metadata: of the model.
        images: (H, W, 3) uint8 BGR each.

    Attributes:
        raw: of each image (P, C + 4 * (R + 1)), class scores and box logits.
        boxes: of each image (P, 4), pixels of the input.
        detections: of each image, and ``lowest``, the score that it takes to be found there.
        score_threshold: the model's, or a lower one where it finds next to nothing with that, as an
            untrained one: so that there are detections to compare.
    """

    def __init__(self, model: NanoDetPlus, metadata: ExportMetadata, images: Sequence[np.ndarray]):
        self.model, self.metadata, self.images = model, metadata, images
        self.raw: list[np.ndarray] = []
        self.boxes: list[np.ndarray] = []
        self.detections: list[Instances] = []
        self.lowest: list[float] = []
        for image in images:
            with torch.inference_mode():
                self._run(image)
        self.score_threshold = self._threshold()

    def _run(self, image: np.ndarray) -> None:
        model, x = self.model, self.metadata.input
        pixels = torch.from_numpy(self._pixels(image)).permute(2, 0, 1)
        if (x.channel_order == "BGR") == model.flip_channels:
            pixels = pixels.flip(0)  # the model is handed RGB images
        sample = {"image": pixels, "height": image.shape[0], "width": image.shape[1]}
        if x.resize == FIT:
            rows, columns = image.shape[:2]
            sample["warp_matrix"] = fit_of(rows, columns, x.height, x.width).matrix
        pyramid = model.neck(model.backbone(model.preprocess_image([sample]).tensor))
        raw = model.head(pyramid)
        found = model.head.decode(raw, model.head.priors(pyramid))
        scores = found.logits.sigmoid()
        self.raw.append(torch.cat([scores, found.box_logits], dim=-1)[0].numpy())
        self.boxes.append(clip_boxes_to_image(found.boxes[0], (x.height, x.width)).numpy())
        self.detections.append(model([sample])[0]["instances"])
        lowest = self._lowest(scores[0].numpy(), self.boxes[-1], self.metadata.score_threshold)
        self.lowest.append(lowest)

    def _pixels(self, image: np.ndarray) -> np.ndarray:
        """An image at the input's size, (H, W, 3) BGR, with the mean colour where it has none."""
        x = self.metadata.input
        if x.resize != FIT:
            return stretch(image, x.height, x.width)
        rows, columns = image.shape[:2]
        fit = fit_of(rows, columns, x.height, x.width)
        mean = x.mean if x.channel_order == "BGR" else x.mean[::-1]
        pixels = np.tile(np.array(mean, np.float32), (x.height, x.width, 1))
        pixels[: fit.height, : fit.width] = warp(image, fit.matrix, fit.height, fit.width)
        return pixels

    def detections_in(
        self, outputs: Mapping[str, np.ndarray], size: Sequence[int]
    ) -> tuple[Instances, float]:
        """What PyTorch finds, with ``score_threshold``, in a file's raw or decoded outputs for an
        image of (height, width), and the score that it takes to be found."""
        model, x = self.model, self.metadata.input
        if "boxes" in outputs:
            boxes, scores = torch.from_numpy(outputs["boxes"]), torch.from_numpy(outputs["scores"])
        else:
            raw = torch.from_numpy(outputs["output"])
            sizes = [(-(-x.height // s), -(-x.width // s)) for s in model.head.strides]
            offset = self.metadata.prior_offset
            priors = grid_priors(sizes, model.head.strides, raw.device, offset=offset)
            found = model.head.decode(raw, priors)
            boxes, scores = clip_boxes_to_image(found.boxes, (x.height, x.width)), found.logits
        options = {**model.select, "score_thresh": self.score_threshold}
        (found,) = select_detections(scores, boxes, [(x.height, x.width)], **options)
        lowest = self._lowest(scores[0].numpy(), boxes[0].numpy(), self.score_threshold)
        if x.resize == FIT:
            matrix = fit_of(size[0], size[1], x.height, x.width).matrix
            found = unwarp(found, matrix, (size[0], size[1]))
        return detector_postprocess(found, *size), lowest

    def _lowest(self, scores: np.ndarray, boxes: np.ndarray, threshold: float) -> float:
        """The threshold, or the score of the last detection where only the best are kept. (It may
        be an empty box, which is cut off later.)"""
        x = self.metadata
        kept = select(scores, boxes, threshold, x.nms_threshold, x.max_detections)[1]
        return float(kept[-1]) if len(kept) == x.max_detections else threshold

    def _threshold(self) -> float:
        own = self.metadata.score_threshold
        if sum(map(len, self.detections)) >= FEW:
            return own
        classes = len(self.metadata.class_names)
        scores = np.concatenate([raw[:, :classes].ravel() for raw in self.raw])
        place = max(len(scores) - CANDIDATES * len(self.images) - 1, 0)
        return min(own, float(np.partition(scores, place)[place]))
