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
from nanodet_d2.modeling import NanoDetPlus
from nanodet_d2.predictor import load_image

from . import ncnn, onnx, openvino, torchscript
from .metadata import SUFFIXES, ExportMetadata, export_path, files_of, metadata_path
from .network import END2END_OUTPUTS, OUTPUTS, load_model, network
from .runtimes import PACKAGES as RUNTIME_PACKAGES
from .runtimes import require_packages
from .verify import FP16, FP32, Difference, Mismatch, Reference, drawn_images, verify

logger = logging.getLogger(__name__)

WRITER_PACKAGES = {
    "onnx": onnx.PACKAGES,
    "openvino": (*onnx.PACKAGES, *openvino.PACKAGES),  # made from an ONNX file
    "ncnn": ncnn.PACKAGES,
    "torchscript": torchscript.PACKAGES,
}
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
class Job:
    """What to export; see the command's help."""

    config_file: str
    checkpoint: str
    formats: tuple[str, ...]
    output: Path
    kind: str = "raw"
    input_size: tuple[int, int] | None = None
    dynamic: bool = False
    fp16: bool = False
    int8: bool = False
    calibration: Path | None = None
    eval_json: Path | None = None
    eval_images: Path | None = None
    verify: bool = True
    images: tuple[Path, ...] = ()
    overrides: tuple[str, ...] = ()

    @property
    def variant(self) -> str:
        return "int8" if self.int8 else "fp16" if self.fp16 else ""


@dataclasses.dataclass(frozen=True)
class Written:
    """One line of the summary."""

    path: Path
    kind: str
    differences: list[Difference] | None
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
    reference = None
    if job.verify:
        reference = Reference(
            loaded.model, loaded.metadata, verification_images(job, loaded.metadata)
        )
    else:
        logger.warning("--no-verify: the files are NOT compared with PyTorch")
    job.output.mkdir(parents=True, exist_ok=True)
    written, mismatches = [], []
    for format in job.formats:
        try:
            written.append(_export_one(job, format, loaded.model, loaded.metadata, reference))
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
    packages = [name for format in job.formats for name in WRITER_PACKAGES[format]]
    if job.verify:
        packages += [RUNTIME_PACKAGES[format] for format in job.formats]
    require_packages(dict.fromkeys(packages), "this export")


def verification_images(job: Job, metadata: ExportMetadata) -> list[np.ndarray]:
    if not job.images:
        return drawn_images(metadata.input.height, metadata.input.width)
    return [load_image(path) for path in list_images(job.images)[:MAX_GIVEN_IMAGES]]


def _export_one(
    job: Job,
    format: str,
    model: NanoDetPlus,
    metadata: ExportMetadata,
    reference: Reference | None,
) -> Written:
    start = time.perf_counter()
    path = export_path(job.output, metadata.name, format, kind=job.kind, variant=job.variant)
    logger.info("%s: writing %s", format, path)
    metadata = _of_file(metadata, format, job)
    write(model, format, path, metadata, fp16=job.fp16)
    metadata_path(path).write_text(metadata.to_json() + "\n", encoding="utf-8")
    differences = None
    if reference is not None:
        logger.info("%s: comparing with PyTorch on %d images", format, len(reference.images))
        try:
            differences = verify(path, reference, FP16 if job.fp16 else FP32)
        except Mismatch as error:
            bad = path.rename(f"{path}.bad")
            raise Mismatch(f"{error} (the file was renamed to {bad.name})") from error
    return Written(path, job.kind, differences, time.perf_counter() - start)


def _of_file(metadata: ExportMetadata, format: str, job: Job) -> ExportMetadata:
    outputs = OUTPUTS.get(job.kind, END2END_OUTPUTS)
    if format == "ncnn":
        outputs = tuple(f"{x}{stride}" for x in ("cls", "dis") for stride in metadata.strides)
    name = "image" if job.kind == "end2end" else "data"
    described = dataclasses.replace(metadata.input, name=name, dynamic=job.dynamic)
    return dataclasses.replace(metadata, kind=job.kind, outputs=outputs, input=described)


def write(
    model: NanoDetPlus, format: str, path: Path, metadata: ExportMetadata, *, fp16: bool = False
) -> None:
    """Write a model in one format, as its metadata says."""
    inner = "decoded" if metadata.kind == "end2end" else metadata.kind
    if format == "ncnn":
        ncnn.export_ncnn(network(model, "split"), path, metadata, fp16=fp16)
    elif format == "torchscript":
        torchscript.export_torchscript(network(model, inner), path, metadata)
    elif format == "onnx":
        onnx.export_onnx(network(model, inner), path, metadata)
    else:
        with tempfile.TemporaryDirectory() as folder:
            onnx_path = Path(folder) / "model.onnx"
            onnx.export_onnx(network(model, inner), onnx_path, metadata)
            openvino.export_openvino(onnx_path, path, metadata, fp16=fp16)


def summary(written: Sequence[Written]) -> str:
    """A table of files."""
    rows = [("file", "MB", "kind", "worst difference from PyTorch", "seconds")]
    for x in written:
        size = sum(path.stat().st_size for path in files_of(x.path) if path.suffix != ".json")
        rows.append(
            (x.path.name, f"{size / 1e6:.2f}", x.kind, _worst(x.differences), f"{x.seconds:.1f}")
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths)).rstrip() for row in rows)


def _worst(differences: Sequence[Difference] | None) -> str:
    if differences is None:
        return "not verified"
    worst = max(
        (x for x in differences if x.allowed), key=lambda x: x.value / x.allowed, default=None
    )
    detections = "same detections"
    return f"{worst.value:.1e} ({worst.output}), {detections}" if worst else detections
