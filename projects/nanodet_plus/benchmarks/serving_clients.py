"""The clients of ``serving.py``, a locustfile: so many requests, each answer compared.

Needs locust alone. The environment names a folder with ``bodies.json``, how many requests there are
to be, and the json to write.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from pathlib import Path

from locust import FastHttpUser, events, task
from locust.exception import StopUser

FOLDER = Path(os.environ["SERVING_BODIES"])
COUNT = int(os.environ["SERVING_REQUESTS"])
RESULT = Path(os.environ["SERVING_RESULT"])
LISTED = json.loads((FOLDER / "bodies.json").read_text())
BODIES = [(FOLDER / x["file"]).read_bytes() for x in LISTED]
SHOWN = 5  # wrong answers that are told

numbers = itertools.count()
answered: list[tuple[float, float]] = []  # when a request began, and when its answer was there
lost: list[str] = []
wrong: list[str] = []


class Client(FastHttpUser):
    """One connection, one request after the other, without a pause."""

    network_timeout = connection_timeout = 60.0

    @task
    def detect(self) -> None:
        number = next(numbers)
        if number >= COUNT:
            raise StopUser()
        body, expected = BODIES[number % len(BODIES)], LISTED[number % len(BODIES)]
        begin = time.perf_counter()
        with self.client.post(
            "/detect", data=body, headers=expected["headers"], catch_response=True
        ) as response:
            response.success()  # this file counts what is not
        answered.append((begin, time.perf_counter()))
        self.check(response, expected)
        if len(answered) == COUNT:
            self.environment.runner.quit()

    def check(self, response, expected: dict) -> None:
        if not response.status_code:
            lost.append(f"{expected['file']}: {getattr(response, 'error', None)!r}")
        elif response.status_code != expected["status"]:
            wrong.append(f"{expected['file']}: status {response.status_code}")
        elif expected["answer"] is not None and json.loads(response.content) != expected["answer"]:
            wrong.append(f"{expected['file']}: another answer")


@events.quitting.add_listener
def save(environment, **_) -> None:
    environment.process_exit_code = 0
    begins, ends = zip(*answered) if answered else ((0.0,), (0.0,))
    facts = {
        "seconds": [end - begin for begin, end in answered],
        "took": max(ends) - min(begins),
        "lost": len(lost) + COUNT - len(answered),
        "wrong": len(wrong),
        "told": (lost + wrong)[:SHOWN],
    }
    RESULT.write_text(json.dumps(facts))
