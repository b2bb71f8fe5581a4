"""One export from the checkpoint to verified files."""

from __future__ import annotations

import dataclasses
import logging
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nanodet_d2.runtime import Detector
from nanodet_d2.runtime.backends import backend_of
from nanodet_d2.runtime.files import list_images
from nanodet_d2.runtime.images import load_image
from nanodet_d2.runtime.metadata import ExportMetadata

from .calibration import calibration_pictures
from .expected import Expected
from .job import Job, check_job
from .loading import LoadedModel
from .products import Products
from .score import score
from .verify import FP16, FP32, Difference, Mismatch, drawn_images, verify, verify_int8

logger = logging.getLogger(__name__)

MAX_GIVEN_IMAGES = 8  # that are verified with


@dataclasses.dataclass(frozen=True)
class Written:
    """One line of the summary."""

    path: Path
    kind: str
    differences: list[Difference] | None  # None if not verified
    note: str
    seconds: float

    @property
    def size(self) -> int:
        """Bytes of the model and its weights."""
        files = backend_of(self.path).files(self.path)
        return sum(path.stat().st_size for path in files if path.suffix != ".json")

    def facts(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "path": str(self.path), "bytes": self.size}


def export(loaded: LoadedModel, job: Job) -> list[Written]:
    """Write and verify the files of a job.

    Raises:
        ValueError: if the job cannot be done, before anything is; ``Mismatch`` for a file that
            does not compute what PyTorch does. It is renamed to ``….bad``; the others stay.
        ImportError: for packages that are not installed.
        FileNotFoundError: if a file that it needs is not there.
    """
    check_job(job)
    calibration = (
        calibration_pictures(job.calibration, job.calibration_count) if job.calibration else []
    )
    products = Products(loaded.model, loaded.metadata, job, calibration)
    reference = None
    if job.verify:
        images = verification_images(job, loaded.metadata)
        reference = Expected(loaded.model, loaded.metadata, images)
    else:
        logger.warning("--no-verify: the files are NOT compared with PyTorch")
    job.output.mkdir(parents=True, exist_ok=True)
    written, mismatches = [], []
    for format in job.formats:
        try:
            written.append(_export_one(job, format, products, reference))
        except Mismatch as error:
            mismatches.append(str(error))
            logger.error("%s", error)
    if mismatches:
        raise Mismatch("; ".join(mismatches))
    return written


def verification_images(job: Job, metadata: ExportMetadata) -> list[np.ndarray]:
    if not job.images:
        return drawn_images(metadata.input.height, metadata.input.width)
    return [load_image(path) for path in list_images(job.images)[:MAX_GIVEN_IMAGES]]


def _export_one(job: Job, format: str, products: Products, reference: Expected | None) -> Written:
    start = time.perf_counter()
    path = job.path(products.metadata.name, format)
    logger.info("%s: writing %s", format, path)
    products.write(format, path)
    differences = None
    if reference is not None:
        logger.info("%s: comparing with PyTorch on %d images", format, len(reference.images))
        try:
            if job.int8:
                differences = verify_int8(path, reference)
            else:
                differences = verify(path, reference, FP16 if job.fp16 else FP32)
        except Mismatch as error:
            bad = path.rename(f"{path}.bad")
            raise Mismatch(f"{error} (the file was renamed to {bad.name})") from error
    note = ""
    if job.int8 and job.eval_json:
        note = _average_precisions(job, format, products, path)
    return Written(path, job.kind, differences, note, time.perf_counter() - start)


def _average_precisions(job: Job, format: str, products: Products, path: Path) -> str:
    """AP of the float and of the quantised file, in words."""
    assert job.eval_json and job.eval_images
    logger.info("%s: scoring the float and the INT8 file", format)
    with tempfile.TemporaryDirectory() as folder:
        before = Path(folder) / path.name
        products.write(format, before, int8=False)
        ap = [
            score(Detector(x), job.eval_json, job.eval_images)["bbox"]["AP"] for x in (before, path)
        ]
    return f"AP {ap[0]:.2f} before, {ap[1]:.2f} after"


def summary(written: Sequence[Written]) -> str:
    """A table of files."""
    rows = [("file", "MB", "kind", "worst difference from PyTorch", "seconds")]
    for x in written:
        cells = (x.kind, "; ".join(filter(None, [_worst(x.differences), x.note])))
        rows.append((x.path.name, f"{x.size / 1e6:.2f}", *cells, f"{x.seconds:.1f}"))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths)).rstrip() for row in rows)


def _worst(differences: Sequence[Difference] | None) -> str:
    if differences is None:
        return "not verified"
    tensors = [x for x in differences if x.allowed]  # the others are counts, all of them 0
    if not tensors:
        return "same detections"
    worst = max(tensors, key=lambda x: x.value / x.allowed)
    return f"{worst.value:.1e} ({worst.output})"
