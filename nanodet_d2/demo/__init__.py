"""Detect in pictures, videos or a camera: ``python -m nanodet_d2.demo MODEL --input … --output …``

The model is an exported file of any format, or a config with ``--weights``. Written are pictures
(in ``pictures/``) or a video with boxes, and ``detections.json`` in COCO format. What was done
before an error, or before Ctrl+C, is kept.
"""
