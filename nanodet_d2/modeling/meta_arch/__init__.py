"""The detector: wiring of injected parts and the flow of data through them."""

from .nanodet_plus import GFL, NanoDetPlus, OneStageDetector

__all__ = ["GFL", "NanoDetPlus", "OneStageDetector"]
