"""Export to other engines: files that describe themselves and are checked when they are written.

``writer.export`` writes and verifies them, ``score.score`` scores them, and
``nanodet_d2.runtime.Detector`` runs them.
"""
