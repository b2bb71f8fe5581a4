"""What an exported file says of itself, for detectors in tests that have no network."""

from __future__ import annotations

from nanodet_d2.runtime.metadata import ExportMetadata, InputDescription


def metadata(height: int, width: int, *, dynamic: bool = False) -> ExportMetadata:
    """Of a raw file of two classes."""
    return ExportMetadata(
        name="fake",
        kind="raw",
        class_names=("dog", "lamp"),
        strides=(8,),
        reg_max=7,
        input=InputDescription("data", height, width, dynamic, "BGR", (0.0,) * 3, (1.0,) * 3),
        outputs=("output",),
        score_threshold=0.05,
        nms_threshold=0.6,
        max_detections=100,
        versions={},
        checkpoint_sha256="00",
    ).with_outputs(["output"])
