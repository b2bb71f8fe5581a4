"""Detect in pictures, videos or a camera: ``python -m nanodet_d2.demo MODEL --input … --output …``

The model is an exported file of any format, or a config with ``--weights``. Written are pictures
(in ``pictures/``) or a video with boxes, ``detections.jsonl``, a line for each picture as it comes,
and at the end ``detections.json`` in COCO format. A picture or frame that fails is named and does
not cost the others. Ctrl+C and SIGTERM keep what was done.
"""
