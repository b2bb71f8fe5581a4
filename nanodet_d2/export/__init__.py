"""Export to other runtimes: files that describe themselves and are checked when they are written.

``python -m nanodet_d2.export`` writes them, ``python -m nanodet_d2.export.evaluate`` scores them,
and ``nanodet_d2.predictor.Detector`` runs them. Nothing is imported here, so that a device that
only runs an exported file needs no exporter.
"""
