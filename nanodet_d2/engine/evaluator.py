"""detectron2's COCOEvaluator with all twelve metrics and pictures, lenient with hand-made files."""

from __future__ import annotations

import contextlib
import io
import os
from typing import Any

from detectron2.data import MetadataCatalog
from detectron2.data.datasets import convert_to_coco_json
from detectron2.evaluation import COCOEvaluator

from nanodet_d2.compat import has_compiled_op
from nanodet_d2.data.readers.coco_schema import is_crowd

from .report import write_evaluation_report

_RECALLS = ("AR1", "AR10", "AR100", "ARs", "ARm", "ARl")  # COCOeval.stats[6:12]


class DetectionEvaluator(COCOEvaluator):
    """Box AP and AR of a data set in detectron2's catalog.

    Args:
        dataset_name: name in detectron2's catalog.
        output_dir: where predictions, AP per class, precision-recall curves and the confusion
            matrix are written, as json and pictures; nowhere if None.
    """

    def __init__(self, dataset_name: str, output_dir: str | None = None):
        metadata = MetadataCatalog.get(dataset_name)
        if not hasattr(metadata, "json_file") and output_dir is not None:
            # detectron2 would go on with the file of an earlier run, whatever has changed since.
            json_file = os.path.join(output_dir, f"{dataset_name}_coco_format.json")
            convert_to_coco_json(dataset_name, json_file, allow_cached=False)
            metadata.json_file = json_file
        super().__init__(
            dataset_name,
            tasks=("bbox",),
            output_dir=output_dir,
            use_fast_impl=has_compiled_op("COCOevalEvaluateImages"),
        )
        self._complete_annotations()

    def found(self) -> tuple[Any, list[dict[str, Any]]]:
        """After an evaluation: the ground truth as pycocotools has it, and the detections of all
        pictures as a COCO file has them."""
        return self._coco_api, [x for one in self._predictions for x in one.get("instances", ())]

    def _complete_annotations(self) -> None:
        """Fill in the fields that pycocotools needs and hand-made files lack or mean otherwise."""
        content = self._coco_api.dataset
        content.setdefault("info", {})
        annotations = content.get("annotations", [])
        for annotation in annotations:
            annotation["iscrowd"] = int(is_crowd(annotation))
            if type(annotation.get("area")) not in (int, float):
                annotation["area"] = annotation["bbox"][2] * annotation["bbox"][3]
        # For pycocotools, an object whose id is below 1 was not found, and an id has one object.
        ids = {x["id"] for x in annotations}
        if len(ids) < len(annotations) or any(isinstance(x, str) or x < 1 for x in ids):
            for number, annotation in enumerate(annotations, start=1):
                annotation["id"] = number
            with contextlib.redirect_stdout(io.StringIO()):  # it prints
                self._coco_api.createIndex()

    def _derive_coco_results(self, coco_eval: Any, iou_type: str, class_names: Any = None) -> dict:
        if coco_eval is not None and class_names is not None:
            class_names = self._in_order_of_ids(class_names, coco_eval.params.catIds)
        results = super()._derive_coco_results(coco_eval, iou_type, class_names)
        if coco_eval is None:
            return results
        if self._output_dir:
            write_evaluation_report(coco_eval, class_names, self._output_dir)
        recalls = {
            name: 100 * float(x) if x >= 0 else float("nan")  # -1: no such objects in the set
            for name, x in zip(_RECALLS, coco_eval.stats[6:12])
        }
        per_class = {k: v for k, v in results.items() if "-" in k}
        overall = {k: v for k, v in results.items() if k not in per_class}
        return {**overall, **recalls, **per_class}

    def _in_order_of_ids(self, class_names: list[str], category_ids: list[int]) -> list[str]:
        """The classes as pycocotools sorts them; detectron2 takes them for sorted already."""
        index = getattr(self._metadata, "thing_dataset_id_to_contiguous_id", None)
        return [class_names[index[key]] for key in category_ids] if index else list(class_names)
