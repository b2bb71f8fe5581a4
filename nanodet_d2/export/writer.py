"""One export from the checkpoint to verified files."""

from __future__ import annotations

import dataclasses
import logging
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nanodet_d2.conformance import write_kit
from nanodet_d2.runtime import Detector
from nanodet_d2.runtime.backends import backend_of

from .calibration import calibration_pictures
from .expected import Expected
from .formats import find_format
from .int8 import Explanation
from .int8 import in_words as explanation_in_words
from .job import Job, check_job, check_nms, check_resize
from .loading import LoadedModel
from .pictures import batch_of, other_size, verification_images
from .placing import folder_beside, move_all
from .products import Products
from .running import Difference, Mismatch
from .score import score
from .verify import DETECTIONS, FP16, FP32, verify
from .verify_int8 import clear_score, verify_int8

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Written:
    """One line of the summary."""

    path: Path
    kind: str
    differences: list[Difference] | None  # None if not verified
    note: str
    seconds: float
    explanation: Explanation | None = None

    @property
    def size(self) -> int:
        """Bytes of the model and its weights."""
        return backend_of(self.path).size(self.path)

    def facts(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "path": str(self.path), "bytes": self.size}


def export(loaded: LoadedModel, job: Job) -> list[Written]:
    """Write and verify the files of a job.

    Raises:
        ValueError: if the job cannot be done, before anything is; ``Mismatch`` for a file that
            does not compute what PyTorch does. It is written as ``….bad``; the others stay, and so
            does an earlier one of its name.
        ImportError: for packages that are not installed.
        FileNotFoundError: if a file that it needs is not there.
    """
    check_job(job)
    check_resize(job, loaded.metadata.input.resize)
    check_nms(job, loaded.metadata.nms)
    calibration = (
        calibration_pictures(job.calibration, job.calibration_count) if job.calibration else []
    )
    products = Products(loaded.model, loaded.metadata, job, calibration)
    references = references_for(loaded, job, calibration) if job.verify else []
    if not job.verify:
        logger.warning("--no-verify: the files are NOT compared with PyTorch")
    job.output.mkdir(parents=True, exist_ok=True)
    written, mismatches = [], []
    for format in job.formats:
        try:
            written.append(_export_one(job, format, products, references))
        except Mismatch as error:
            mismatches.append(str(error))
            logger.error("%s", error)
    if job.kit:
        for x in written:
            logger.info("kit: %s", write_kit(x.path, images=job.images))
    if mismatches:
        raise Mismatch("; ".join(mismatches))
    return written


def references_for(loaded: LoadedModel, job: Job, calibration: Sequence[Path]) -> list[Expected]:
    """What PyTorch computes: at the model's size and, for a dynamic file, at another one.

    Raises:
        ValueError: if nothing in the pictures would tell whether an INT8 file is right.
    """
    described = loaded.metadata.input
    images = verification_images(job, described, calibration)
    references = [Expected(loaded.model, loaded.metadata, images)]
    if job.dynamic:
        height, width = other_size(described)
        other = dataclasses.replace(described, height=height, width=width)
        metadata = dataclasses.replace(loaded.metadata, input=other)
        references.append(Expected(loaded.model, metadata, batch_of(images)))
    if job.int8:
        clear_score(references[0])
    return references


def _export_one(
    job: Job, format: str, products: Products, references: Sequence[Expected]
) -> Written:
    """Write a file and what belongs to it aside, and put it in its place when it is verified."""
    start = time.perf_counter()
    path = job.path(products.metadata.name, format)
    logger.info("%s: writing %s", format, path)
    with folder_beside(path) as folder:
        aside = folder / path.name
        products.write(format, aside)
        explanation = _explain(job, format, products, aside)
        try:
            differences = _verify(job, aside, references) if references else None
        except ValueError as error:  # also of a file that gives what its metadata does not say
            move_all(folder, path.parent, suffix=".bad", last=path.name)
            words = str(error).replace(str(aside), str(path))
            raise Mismatch(f"{words} (its files were renamed to {path.name}.bad, …)") from error
        move_all(folder, path.parent, last=path.name)
    note = ""
    if job.int8 and job.eval_json:
        note = _average_precisions(job, format, products, path)
    kind = products.describe(format).kind
    seconds = time.perf_counter() - start
    return Written(path, kind, differences, note, seconds, explanation)


def _explain(job: Job, format: str, products: Products, path: Path) -> Explanation | None:
    """If it is asked for, what INT8 costs, which is written beside the file."""
    writer = find_format(format)
    if not job.explain or writer.scheme is None:
        return None
    found = products.explanation(writer.scheme)
    beside = writer.backend.metadata_path(path).with_suffix(".explain.json")
    beside.write_text(found.to_json() + "\n", encoding="utf-8")
    return found


def _verify(job: Job, path: Path, references: Sequence[Expected]) -> list[Difference]:
    images = sum(len(x.images) for x in references)
    logger.info("%s: comparing with PyTorch on %d images", path.name, images)
    if job.int8:
        return verify_int8(path, references)
    differences = verify(path, references, FP16 if job.fp16 else FP32)
    if any(x.compared == 0 for x in differences):
        logger.warning(
            "%s: PyTorch detects nothing in the pictures, so that no detections were compared; "
            "give pictures of what the model knows with --images",
            path.name,
        )
    return differences


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
    """A table of files, and what is to be explained of them."""
    rows = [("file", "MB", "kind", "worst difference from PyTorch", "seconds")]
    for x in written:
        cells = (x.kind, "; ".join(filter(None, [in_words(x.differences), x.note])))
        rows.append((x.path.name, f"{x.size / 1e6:.2f}", *cells, f"{x.seconds:.1f}"))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    table = ["  ".join(c.ljust(w) for c, w in zip(row, widths)).rstrip() for row in rows]
    for x in written:
        if x.explanation is not None:
            table += ["", f"{x.path.name}: {explanation_in_words(x.explanation)}"]
    return "\n".join(table)


def in_words(differences: Sequence[Difference] | None) -> str:
    """The worst difference of the tensors, and how many detections differ of how many."""
    if differences is None:
        return "not verified"
    tensors = [x for x in differences if x.compared is None]
    words = []
    if tensors:
        worst = max(tensors, key=lambda x: x.value / x.allowed)
        words.append(f"{worst.value:.1e} ({worst.output})")
    for x in differences:
        if x.compared is not None:
            verb = " differ" if x.output == DETECTIONS else ""
            count = f"{x.value:g} of {x.compared} {x.output}{verb}"
            words.append(count if x.compared else "no detections to compare")
    return ", ".join(words)
