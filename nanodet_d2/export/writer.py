"""One export from the checkpoint to verified files."""

from __future__ import annotations

import dataclasses
import logging
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nanodet_d2.data.files import list_images
from nanodet_d2.predictor import Detector, load_image

from .builder import WRITER_PACKAGES, Builder, Job
from .evaluate import evaluate
from .metadata import SUFFIXES, ExportMetadata, export_path, files_of
from .network import load_model
from .quantize import PACKAGES as QUANTIZER_PACKAGES
from .runtimes import PACKAGES as RUNTIME_PACKAGES
from .runtimes import require_packages
from .verify import FP16, FP32, Difference, Mismatch, Reference, drawn_images, verify, verify_int8

logger = logging.getLogger(__name__)

# Which formats hold what, where not all do.
ALLOWED = {
    "--kind decoded": ("onnx", "openvino", "torchscript"),
    "--kind end2end": ("onnx", "openvino"),
    "--dynamic": ("onnx", "openvino", "torchscript"),
    "--fp16": ("openvino", "ncnn"),
    "--int8": ("onnx", "openvino"),
}
MAX_GIVEN_IMAGES = 8  # that are verified with


@dataclasses.dataclass(frozen=True)
class Written:
    """One line of the summary."""

    path: Path
    kind: str
    differences: list[Difference] | None  # None if not verified
    note: str
    seconds: float


def export(job: Job) -> list[Written]:
    """Write and verify the files of a job, and log a summary.

    Raises:
        ValueError: if the job cannot be done, before anything is; ``Mismatch`` for a file that
            does not compute what PyTorch does. It is renamed to ``….bad``; the others stay.
        FileNotFoundError: if a file that it needs is not there.
    """
    check_job(job)
    logger.info("Loading %s with %s", job.config_file, job.checkpoint)
    loaded = load_model(
        job.config_file, job.checkpoint, input_size=job.input_size, overrides=job.overrides
    )
    calibration = list_images([job.calibration]) if job.calibration else []
    builder = Builder(loaded.model, loaded.metadata, job, calibration)
    reference = None
    if job.verify:
        images = verification_images(job, loaded.metadata)
        reference = Reference(loaded.model, loaded.metadata, images)
    else:
        logger.warning("--no-verify: the files are NOT compared with PyTorch")
    job.output.mkdir(parents=True, exist_ok=True)
    written, mismatches = [], []
    for format in job.formats:
        try:
            written.append(_export_one(job, format, builder, reference))
        except Mismatch as error:
            mismatches.append(str(error))
            logger.error("%s", error)
    if written:
        logger.info("Summary\n%s", summary(written))
    if mismatches:
        raise Mismatch("; ".join(mismatches))
    return written


def check_job(job: Job) -> None:
    """Refuse what cannot be done before anything is."""
    unknown = [format for format in job.formats if format not in SUFFIXES]
    if unknown:
        raise ValueError(f"unknown format {', '.join(unknown)}; known: {', '.join(SUFFIXES)}")
    asked = {
        f"--kind {job.kind}": True,
        "--dynamic": job.dynamic,
        "--fp16": job.fp16,
        "--int8": job.int8,
    }
    for option, given in asked.items():
        wrong = [x for x in job.formats if given and x not in ALLOWED.get(option, job.formats)]
        if wrong:
            raise ValueError(
                f"{option} is not there for {', '.join(wrong)}; "
                f"allowed: {', '.join(ALLOWED[option])}"
            )
    if job.kind == "end2end" and job.dynamic:
        raise ValueError("--dynamic with --kind end2end; its image is of any size already")
    if job.int8 and not job.calibration:
        raise ValueError("--int8 needs --calibration, a folder of pictures like those to come")
    if bool(job.eval_json) != bool(job.eval_images):
        raise ValueError("--eval-json and --eval-images go together")
    packages = [name for format in job.formats for name in WRITER_PACKAGES[format]]
    if job.int8:
        packages += [name for format in job.formats for name in QUANTIZER_PACKAGES[format]]
    if job.verify:
        packages += [RUNTIME_PACKAGES[format] for format in job.formats]
    require_packages(dict.fromkeys(packages), "this export")


def verification_images(job: Job, metadata: ExportMetadata) -> list[np.ndarray]:
    if not job.images:
        return drawn_images(metadata.input.height, metadata.input.width)
    return [load_image(path) for path in list_images(job.images)[:MAX_GIVEN_IMAGES]]


def _export_one(job: Job, format: str, builder: Builder, reference: Reference | None) -> Written:
    start = time.perf_counter()
    name = builder.metadata.name
    path = export_path(job.output, name, format, kind=job.kind, variant=job.variant)
    logger.info("%s: writing %s", format, path)
    builder.write(format, path)
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
        note = _average_precisions(job, format, builder, path)
    return Written(path, job.kind, differences, note, time.perf_counter() - start)


def _average_precisions(job: Job, format: str, builder: Builder, path: Path) -> str:
    """AP of the float and of the quantised file, in words."""
    logger.info("%s: scoring the float and the INT8 file", format)
    with tempfile.TemporaryDirectory() as folder:
        before = Path(folder) / path.name
        builder.write(format, before, int8=False)
        ap = [
            evaluate(Detector(x), job.eval_json, job.eval_images)["bbox"]["AP"]
            for x in (before, path)
        ]
    return f"AP {ap[0]:.2f} before, {ap[1]:.2f} after"


def summary(written: Sequence[Written]) -> str:
    """A table of files."""
    rows = [("file", "MB", "kind", "worst difference from PyTorch", "seconds")]
    for x in written:
        size = sum(path.stat().st_size for path in files_of(x.path) if path.suffix != ".json")
        cells = (x.kind, "; ".join(filter(None, [_worst(x.differences), x.note])))
        rows.append((x.path.name, f"{size / 1e6:.2f}", *cells, f"{x.seconds:.1f}"))
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
