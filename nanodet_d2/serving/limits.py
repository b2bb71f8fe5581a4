"""What a client may ask for, and how it is refused."""

from __future__ import annotations

import dataclasses

MAX_PIXELS = 25_000_000  # of a picture, which takes about 14 bytes for each while it is read
RETRY_AFTER = 1  # seconds: a full queue is computed in about that time


@dataclasses.dataclass(frozen=True)
class Limits:
    """Bounds of requests; those of pixels are the detectors' ``max_pixels``.

    Bodies take at most about ``queue`` times ``max_bytes`` of memory.

    Attributes:
        max_bytes: of a request's body.
        max_images: pictures of a request.
        queue: requests at a time, from their first line to their answer.
        timeout: seconds that a request may take, its body's way included.

    Raises:
        ValueError: for a bound that lets nothing through.
    """

    max_bytes: int = 16 << 20
    max_images: int = 16
    queue: int = 64
    timeout: float = 10.0

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_images", "queue"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)}; allowed: 1 or more")
        if not 0 < self.timeout <= 3600:
            raise ValueError(f"timeout {self.timeout:g}; allowed: more than 0, to 3600 seconds")


class Refusal(Exception):
    """A request that gets no detections.

    Args:
        status: of HTTP.
        reason: what is wrong, and what is allowed, in a line for the client.
        retry_after: seconds after which the same request may succeed, if it may.
    """

    def __init__(self, status: int, reason: str, *, retry_after: int | None = None):
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.retry_after = retry_after
