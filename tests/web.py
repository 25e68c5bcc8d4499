"""A web server in this process that shows a folder, as any storage behind HTTP does."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class _Handler(SimpleHTTPRequestHandler):
    def send_header(self, keyword: str, value: str) -> None:
        """Nobody is told how long files are: they come in pieces."""
        if keyword.lower() != "content-length":
            super().send_header(keyword, value)

    def log_message(self, format: str, *args: object) -> None:
        """Tests read what they want to know elsewhere."""


@contextmanager
def shown(folder: Path) -> Iterator[str]:
    """The URL under which it is shown."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
