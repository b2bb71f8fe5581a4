"""What runs on a device: an exported file, from an image to boxes.

Needs NumPy, OpenCV and the one engine that a file is for; neither torch nor detectron2. Pillow,
where it is installed, reads pictures as training does; else OpenCV reads them.
"""

from .detections import Detections
from .detector import Detector
from .tiles import Tiles

__all__ = ["Detections", "Detector", "Tiles"]
