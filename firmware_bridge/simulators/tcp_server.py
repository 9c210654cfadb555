"""A simulated device on a TCP port of this machine, for protocols that come over a network."""

from __future__ import annotations

import contextlib
import select
import socket
import time

from beingh0_edge.firmware_bridge.simulators.server import Server, Wiring


class TcpServer(Server):
    """One client at a time, as these hands."""

    def __init__(self, wiring: Wiring) -> None:
        super().__init__(wiring)
        self._listener: socket.socket | None = None
        self._client: socket.socket | None = None
        self._number = 0
        self.plug()
        self.port = f"127.0.0.1:{self._number}"

    def plug(self) -> None:
        if self._listener is not None:
            return
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", self._number))
        self._listener.listen(1)
        self._number = self._listener.getsockname()[1]

    def unplug(self) -> None:
        for end in (self._client, self._listener):
            if end is not None:
                end.close()
        self._client = self._listener = None

    def close(self) -> None:
        self.unplug()

    def watched(self) -> list[int]:
        return [end.fileno() for end in (self._listener, self._client) if end is not None]

    def serve(self, ready: int) -> None:
        if self._listener is not None and ready == self._listener.fileno():
            if self._client is not None:
                self._client.close()
            self._client, _ = self._listener.accept()
            self._client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        elif self._client is not None:
            data = b""
            with contextlib.suppress(OSError):
                data = self._client.recv(4096)
            if data:
                self.handle(data, time.monotonic())
            else:
                self._client.close()
                self._client = None

    def deliver(self, data: bytes) -> None:
        if self._client is not None and select.select([], [self._client], [], 0.0)[1]:
            with contextlib.suppress(OSError):
                self._client.sendall(data)
