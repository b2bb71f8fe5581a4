"""INT8 after training, for all engines that have it: nothing is trained.

The network is prepared once, in torch, whatever the format (``prepare.py``):

1. ``equalise.py`` gives the channels between two convolutions one range,
2. ``rounding.py`` rounds weights so that errors make up for each other (GPTQ); the engines, which
   round to the nearest, then find just these weights again,
3. ``ranges.py`` measures what goes in and out of each convolution,
4. ``explain.py`` ranks convolutions by what quantising each alone changes; the worst stay in float.

``qdq.py`` (ONNX, OpenVINO) and ``ncnn.py`` then write the numbers down. The convolutions that
predict, and all that follows them (sigmoid, decoding, NMS), stay in float.
"""

from .explain import Explanation, in_words
from .prepare import Plan, Prepared, calibrate
from .scheme import Range, Scheme

__all__ = ["Explanation", "Plan", "Prepared", "Range", "Scheme", "calibrate", "in_words"]
