"""Compare all exported files of a folder: size, latency, throughput, AP.

``python -m nanodet_d2.benchmark_runtimes FOLDER [--json annotations.json --images FOLDER]``

Each file is measured from the image to its detections, and its network alone. The files take turns
in a new order every round, so that noise of the machine meets all alike.
"""
