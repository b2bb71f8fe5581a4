"""The detector: wiring of injected parts and the flow of data through them."""

from .nanodet_plus import NanoDetPlus

__all__ = ["NanoDetPlus"]
