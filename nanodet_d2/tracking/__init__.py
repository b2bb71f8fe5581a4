"""Ids that last over a video, counts, and scores of both; without torch and detectron2.

Trackers are those of the package ``trackers``, scores those of ``trackeval``: the extra ``video``.
They are imported when they are used. Nothing below imports this room.
"""

from .settings import Settings
from .tracked import Tracked

__all__ = ["Settings", "Tracked"]
