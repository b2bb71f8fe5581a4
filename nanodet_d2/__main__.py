"""``python -m nanodet_d2 VERB …``: the command ``nanodet-d2``."""

import sys

from .cli import main

sys.exit(main())
