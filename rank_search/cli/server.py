"""The web server of `rank-search dashboard`."""

from __future__ import annotations

from socketserver import ThreadingMixIn
from typing import final
from wsgiref.simple_server import WSGIServer


@final
class ThreadedServer(ThreadingMixIn, WSGIServer):
    """Answers each request in its own thread, so that no slow reader keeps others, or Ctrl-C, waiting."""

    daemon_threads = True
