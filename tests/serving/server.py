"""A server with slow fake detectors, as a program: ``python -m tests.serving.server SECONDS``."""

from __future__ import annotations

import logging
import sys

from nanodet_d2.serving.limits import Limits
from nanodet_d2.serving.run import run
from nanodet_d2.serving.service import Service
from tests.serving.fake import Fake


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    seconds = float(sys.argv[1])
    service = Service({"m": lambda: Fake(seconds)}, limits=Limits(timeout=1.5), workers=1)
    run(service, host="127.0.0.1", port=0)


if __name__ == "__main__":
    main()
