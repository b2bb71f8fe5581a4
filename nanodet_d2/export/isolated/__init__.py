"""Converters whose packages do not go with the project's: each runs in an environment of its own.

``environment.py`` makes it, once; the other modules are the programs that run there.
"""

from .environment import Environment, run_in

__all__ = ["Environment", "run_in"]
