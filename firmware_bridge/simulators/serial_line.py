"""How a simulated device listens to a serial line: it collects bytes and forgets half a request after a pause."""

from __future__ import annotations

import abc

from beingh0_edge.firmware_bridge.simulators.server import Answers, Device

FRAME_GAP_S = 0.010  # a pause inside a frame: the rest is not coming


class SerialDevice(Device):
    """Subclasses take whole requests off the front of `_incoming`."""

    def __init__(self) -> None:
        self._incoming = b""
        self._heard_s = 0.0

    def receive(self, data: bytes, now_s: float) -> Answers:
        if self._incoming and now_s - self._heard_s > FRAME_GAP_S:
            self._incoming = b""
        self._heard_s = now_s
        self._incoming += data
        return self._requests(now_s)

    @abc.abstractmethod
    def _requests(self, now_s: float) -> Answers: ...
