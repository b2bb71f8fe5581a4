"""Necks: a pyramid ``p3, p4, …`` of equal channels from a backbone's features."""

from .ghost_pan import GhostPAN

__all__ = ["GhostPAN"]
