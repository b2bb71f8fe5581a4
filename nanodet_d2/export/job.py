"""What is wanted of an export, and whether it can be had."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Sequence
from pathlib import Path

from nanodet_d2.runtime.backends import require_packages
from nanodet_d2.runtime.metadata import FIT

from .calibration import DEFAULT_COUNT
from .formats import Format, find_format, formats


@dataclasses.dataclass(frozen=True)
class Job:
    """What to export; see the command's help.

    Attributes:
        formats: names of ``formats()``.
        output: folder to write.
        kind: "raw", "decoded" or "end2end".
        dynamic: batch, height and width are free.
        calibration: folder of pictures, needed with ``int8``.
        calibration_count: how many of them are used at most.
        eval_json, eval_images: a data set to score ``int8`` with, before and after.
        verify: compare with PyTorch.
        images: pictures or folders to verify with; drawn ones if empty.
        isolated: converters that have an environment of their own run there.
        kit: write the conformance kit of each file beside it.
        explain: tell what each convolution costs in INT8.
    """

    formats: tuple[str, ...]
    output: Path
    kind: str = "raw"
    dynamic: bool = False
    fp16: bool = False
    int8: bool = False
    calibration: Path | None = None
    calibration_count: int = DEFAULT_COUNT
    eval_json: Path | None = None
    eval_images: Path | None = None
    verify: bool = True
    images: tuple[Path, ...] = ()
    isolated: bool = False
    kit: bool = False
    explain: bool = False

    @property
    def options(self) -> tuple[str, ...]:
        """Those of ``Format.options`` that are asked for."""
        asked = {
            f"kind {self.kind}": self.kind != "raw",
            "dynamic": self.dynamic,
            "fp16": self.fp16,
            "int8": self.int8,
        }
        return tuple(name for name, given in asked.items() if given)

    def path(self, name: str, format: str) -> Path:
        """``<name>[_<kind> unless raw][_dynamic][_int8][_fp16]<suffix>`` in the output folder: what
        differs in one of these does not take another file's place."""
        parts = {
            self.kind: self.kind != "raw",
            "dynamic": self.dynamic,
            "int8": self.int8,
            "fp16": self.fp16,
        }
        stem = "_".join([name, *(part for part, given in parts.items() if given)])
        return self.output / (stem + find_format(format).backend.suffix)

    @property
    def precision(self) -> str:
        """As ``ExportMetadata.precision``."""
        return "_".join(["int8"] * self.int8 + ["float16"] * self.fp16) or "float32"


def check_job(job: Job) -> None:
    """Refuse what cannot be done before anything is.

    Raises:
        ValueError: for what no format, or not this one, can do.
        ImportError: for packages that are not installed.
    """
    wanted = [find_format(name) for name in job.formats]
    for option in job.options:
        wrong = [x.backend.format for x in wanted if option not in x.options]
        if wrong:
            able = ", ".join(name for name, x in formats().items() if option in x.options)
            raise ValueError(f"--{option} is not there for {', '.join(wrong)}; allowed: {able}")
    if job.kind == "end2end" and job.dynamic:
        raise ValueError("--dynamic with --kind end2end; its image is of any size already")
    if job.int8 and not job.calibration:
        raise ValueError("--int8 needs --calibration, a folder of pictures like those to come")
    if job.explain and not job.int8:
        raise ValueError("--explain is about --int8, which is missing")
    if job.calibration_count < 1:
        raise ValueError(f"--calibration-count {job.calibration_count}; allowed: 1 or more")
    if bool(job.eval_json) != bool(job.eval_images):
        raise ValueError("--eval-json and --eval-images go together")
    _check_isolation(job, wanted)
    packages = [name for x in wanted for name in x.packages if not (job.isolated and x.environment)]
    packages += [x.backend.needs() for x in wanted if job.verify]
    require_packages(dict.fromkeys(packages), "this export")


def check_resize(job: Job, resize: str) -> None:
    """Refuse, for a model whose images are fitted, what can only stretch them.

    Raises:
        ValueError: saying what is allowed.
    """
    stretching = [name for name in job.formats if not find_format(name).fits_images]
    wrong = [f"--format {', '.join(stretching)}"] * bool(stretching) + ["--kit"] * job.kit
    if job.kind == "end2end":
        rough = [name for name in job.formats if not find_format(name).has_float64]
        wrong += [f"--kind end2end of {', '.join(rough)}"] * bool(rough)
    if resize == FIT and wrong:
        fitting = [x for x, y in formats().items() if y.fits_images]
        exact = [x for x, y in formats().items() if y.has_float64 and "kind end2end" in y.options]
        raise ValueError(
            f"{' and '.join(wrong)} with a model whose images keep their proportions (RandomWarp "
            f"with keep_ratio=True); allowed: --kind raw and decoded of "
            f"{', '.join(fitting)}, end2end of {', '.join(exact)}, without a kit"
        )


def check_nms(job: Job, nms: str) -> None:
    """Refuse an NMS by voting where it would have to be in the graph.

    ONNX's NonMaxSuppression and TensorRT's plugin tell which boxes they keep, and nothing of those
    that they suppress.

    Raises:
        ValueError: naming what has its NMS in the graph.
    """
    in_graph = [name for name in job.formats if find_format(name).has_nms]
    if nms != "plain" and (job.kind == "end2end" or in_graph):
        what = "kind end2end" if job.kind == "end2end" else f"format {', '.join(in_graph)}"
        raise ValueError(
            f"the model has nms {nms!r}, and {what} has its NMS in the graph, which can be plain "
            "only: give model.nms=plain, or export the kind raw or decoded of another format"
        )


def _check_isolation(job: Job, wanted: Sequence[Format]) -> None:
    able = ", ".join(name for name, x in formats().items() if x.environment)
    if job.isolated and not any(x.environment for x in wanted):
        raise ValueError(f"--isolated is not there for {', '.join(job.formats)}; allowed: {able}")
    for x in () if job.isolated else wanted:
        missing = [name for name in x.packages if importlib.util.find_spec(name) is None]
        if x.environment and missing:
            raise ImportError(
                f"--format {x.backend.format} needs {', '.join(missing)}, not installed here: add "
                f"--isolated, and it is installed once apart from here, "
                f"{x.environment.gigabytes} GB in {x.environment.folder}"
            )
