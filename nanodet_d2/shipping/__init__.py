"""Which file to ship: all that this machine can write and run of a model, measured side by side.

``candidates.py`` lists formats x precisions x input sizes, ``making.py`` writes and scores each,
``timing.py`` takes their times in turns, ``choosing.py`` has the rules, ``chart.py`` draws, and
``command.py`` joins them; ``record.py`` keeps what was measured.
"""
