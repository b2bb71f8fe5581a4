"""Compare exported files and models: size, latency, throughput, AP.

Each is measured from the image to its detections, and its network alone. They take turns in a new
order every round, so that noise of the machine meets all alike.
"""
