"""Does a program in another language do what this one does, from a picture to its boxes?

A *kit* holds pictures, what comes out of each stage for them, and ``contract.json``, which says
what the stages are. A port runs the pictures and writes down what it has; the check names the first
stage that differs, and which known mistake gives just that. Neither needs torch.
"""

from .check import Report, check
from .kit import Kit, read_kit, write_kit
from .result import read_result

__all__ = ["Kit", "Report", "check", "read_kit", "read_result", "write_kit"]
