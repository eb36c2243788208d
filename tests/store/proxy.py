"""A way to a server that can lose its answers: what the client sent has arrived, and the client never learns of it."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from typing import Final, Self, final

COMMIT: Final = b"Q\x00\x00\x00\x0bCOMMIT\x00"
"""The message that ends a transaction, reading or writing."""


@final
class Proxy:
    """Hands on what comes to a port of 127.0.0.1 of its own, both ways, while its context is open."""

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._commits_left = 0
        self.port = int(self._listener.getsockname()[1])
        self.lost = 0

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()

    def lose_answer(self, place: int = 1) -> None:
        """Hand on the next commit, or a later one, wait for its answer, and break the connection instead."""
        self._commits_left = place

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._target) as server, contextlib.suppress(OSError):
            back = threading.Thread(target=_copy, args=(server, client), daemon=True)
            back.start()
            while data := client.recv(65536):
                if self._is_to_lose(data):
                    client.shutdown(socket.SHUT_RDWR)
                    server.sendall(data)
                    server.shutdown(socket.SHUT_WR)
                    back.join()
                    self.lost += 1
                    return
                server.sendall(data)

    def _is_to_lose(self, data: bytes) -> bool:
        if self._commits_left == 0 or COMMIT not in data:
            return False
        self._commits_left -= 1
        return self._commits_left == 0


def _copy(source: socket.socket, target: socket.socket) -> None:
    """Until the source ends; what the target no longer takes is lost."""
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            with contextlib.suppress(OSError):
                target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)
