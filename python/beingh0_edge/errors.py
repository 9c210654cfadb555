"""Every error the package raises on purpose. Wrong arguments are plain ValueError or TypeError."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class BeingH0Error(Exception):
    """Base of all errors below."""


class BundleError(BeingH0Error):
    """A bundle or checkpoint file is missing, truncated, altered, foreign or of another revision."""

    def __init__(self, message: str, path: str | None = None) -> None:
        super().__init__(message)
        self.path = path


class BackendError(BeingH0Error):
    """An inference engine is absent or refuses the model; the message names the extra to install."""

    def __init__(self, message: str, backend: str | None = None) -> None:
        super().__init__(message)
        self.backend = backend


class TokenError(BeingH0Error, ValueError):
    """Ids do not form whole motion blocks, or an id is outside its part's range."""

    def __init__(self, message: str, position: int | None = None) -> None:
        super().__init__(message)
        self.position = position


class RetargetError(BeingH0Error):
    """No finite joint angles for a frame."""

    def __init__(self, message: str, frame: int | None = None) -> None:
        super().__init__(message)
        self.frame = frame


class RobotFileError(BeingH0Error):
    """A description of a robot hand (compact, URDF or MJCF) does not hold or has something unsupported."""

    def __init__(self, message: str, path: str | None = None) -> None:
        super().__init__(message)
        self.path = path


class HandError(BeingH0Error):
    """Anything that went wrong between the bridge and a hand; the hand was stopped first.

    `hand` is its name, `recent` the last bridge cycles (oldest first) as dictionaries.
    """

    def __init__(self, message: str, hand: str | None = None,
                 recent: Sequence[dict[str, Any]] = ()) -> None:
        super().__init__(message)
        self.hand = hand
        self.recent = list(recent)


class TransportError(HandError, OSError):
    """The port does not exist, is taken, or was lost."""


class TransportTimeout(TransportError, TimeoutError):
    """The hand did not answer in time."""


class PacketError(HandError):
    """A reply has a wrong checksum, length, id or command."""


class LimitError(HandError):
    """A command is not finite or lies outside the joint range."""


class HandFault(HandError):
    """The hand itself reports a fault; `code` is the vendor's number."""

    def __init__(self, message: str, hand: str | None = None,
                 recent: Sequence[dict[str, Any]] = (), code: int = 0) -> None:
        super().__init__(message, hand, recent)
        self.code = code
