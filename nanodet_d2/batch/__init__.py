"""Detecting in any number of pictures, so that none is lost and a run that was cut off goes on.

What is named is listed once and cut into shards of consecutive pictures (``items.py``,
``plan.py``); a shard becomes rows by one function (``rows.py``), in a process that may die
(``process.py``), of this machine (``local.py``) or of a cluster (``on_ray.py``). Files are named by
what they were made of and by their content (``shards.py``), so what lies there already is known to
be right, and which process made it makes no difference. ``command.py`` joins them.
"""

from .command import Wish, detect_all
from .work import Work

__all__ = ["Wish", "Work", "detect_all"]
