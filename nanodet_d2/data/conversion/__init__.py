"""A data set of any layout as COCO files; nothing else needs this folder.

Layouts that :mod:`nanodet_d2.data.readers` knows are written as they are read; the json files of
labelme, Label Studio and CreateML are read here. All others are read by datumaro (MIT licence): the
library under CVAT, which is kept well and reads some eighty formats, among them those of CVAT,
KITTI, MOT, Open Images and VoTT. It is an optional extra, ``nanodet-d2[datasets]``.
"""

from .convert import Converted, convert

__all__ = ["Converted", "convert"]
