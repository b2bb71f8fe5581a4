"""The application in this process, by uvicorn."""

from __future__ import annotations

import contextlib
import logging
import math
import signal
import socket
from collections.abc import Iterator

import uvicorn

from .app import make_app
from .service import Service

logger = logging.getLogger(__name__)
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def run(service: Service, *, host: str, port: int) -> None:
    """Serve until SIGTERM or Ctrl+C. Then the port is closed, what is in progress is answered,
    which takes at most its time limit, and the service is closed. For the main thread.

    Args:
        host: address to listen at, "0.0.0.0" for all of this machine's.
        port: 0 for any that is free; the log says which.

    Raises:
        ValueError: for a number that is no port.
        OSError: if the address cannot be had.
    """
    if not 0 <= port <= 65535:
        raise ValueError(f"port {port}; allowed: 0 to 65535")
    server = uvicorn.Server(
        uvicorn.Config(
            make_app(service),
            http="h11",  # bounds the size of headers, which httptools does not
            ws="none",
            loop="asyncio",
            lifespan="on",
            proxy_headers=False,
            server_header=False,
            access_log=False,
            log_config=None,
            log_level="error",
            timeout_graceful_shutdown=math.ceil(service.limits.timeout) + 1,
        )
    )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with _ended_by_signals(server), socket.create_server((host, port), family=family) as listener:
        # Else the end of each answer waits some 40 ms for the client's word that it has its
        # beginning. asyncio sets it, but not for connections of a socket like this one.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        address = f"[{host}]" if ":" in host else host
        names = ", ".join(service.pools)
        logger.info("serving %s at http://%s:%d", names, address, listener.getsockname()[1])
        server.run([listener])
    logger.info("ended")


@contextlib.contextmanager
def _ended_by_signals(server: uvicorn.Server) -> Iterator[None]:
    """uvicorn handles signals while it runs, and sends itself those again that ended it; here
    these, and any that come before it runs, do no more than to end it."""

    def end(number: int, frame: object) -> None:
        server.should_exit = True

    before = {number: signal.signal(number, end) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
