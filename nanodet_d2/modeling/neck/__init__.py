"""Necks: a pyramid ``p3, p4, …`` of equal channels from a backbone's features."""

from .ghost_pan import GhostPAN
from .pan import FPN, PAN
from .tan import TAN

__all__ = ["FPN", "PAN", "TAN", "GhostPAN"]
