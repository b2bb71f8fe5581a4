"""A web server of this machine, for what is fetched."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextlib.contextmanager
def serve(content: bytes) -> Iterator[tuple[str, list[str]]]:
    """URL of a server that answers every path with the same bytes, and the paths asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):  # noqa: N802
            asked.append(self.path)
            gone = "absent" in self.path
            self.send_response(404 if gone else 200)
            self.send_header("Content-Length", str(0 if gone else len(content)))
            self.end_headers()
            self.wfile.write(b"" if gone else content)

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()
