"""The command `beingh0`: the one place that may use every part of the package, and the only one that prints.

What can go wrong by itself (a wrong argument, a missing or damaged file, a taken port, a hand at fault)
ends in one line on stderr and exit status 2. Anything else is a bug and shows its traceback.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from ..errors import BeingH0Error

FAILED, INTERRUPTED = 2, 130
_EXTRA_OF = {"torch": "train", "transformers": "train", "gguf": "convert", "onnx": "convert",
             "smplx": "bench", "skimage": "hand", "scipy": "hand"}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    previous = {number: signal.signal(number, _terminate) for number in (signal.SIGTERM, signal.SIGHUP)
                if signal.getsignal(number) is not signal.SIG_IGN}  # nohup ignores SIGHUP, and that stays
    try:
        return _run(argv)
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:  # `beingh0 doctor | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except ModuleNotFoundError as error:
        extra = _EXTRA_OF.get((error.name or "").partition(".")[0])
        if extra is None or _wants_traceback():
            raise
        return _fail(f"this command needs {error.name}: pip install 'beingh0-edge[{extra}]'")
    except (BeingH0Error, ValueError, OSError) as error:
        if _wants_traceback():
            raise
        if isinstance(error, OSError) and error.filename is not None:
            return _fail(f"{os.fsdecode(error.filename)}: {error.strerror}")
        return _fail(str(error) or type(error).__name__)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _run(argv: Sequence[str] | None) -> int:
    from .app import Aborted, CommandLineError, command

    try:
        status = command().main(args=None if argv is None else list(argv), prog_name="beingh0",
                                standalone_mode=False)
    except CommandLineError as error:
        return _fail(error.format_message())
    except Aborted:  # typer's word for Ctrl-C; newer versions return 130
        status = INTERRUPTED
    if sys.stdout is not None:  # closed by `>&-`
        sys.stdout.flush()
    if status == INTERRUPTED:
        raise KeyboardInterrupt
    return status if isinstance(status, int) else 0


def _fail(message: str, status: int = FAILED) -> int:
    print(f"beingh0: {' '.join(message.split())}", file=sys.stderr)
    return status


def _wants_traceback() -> bool:
    return bool(os.environ.get("BEINGH0_TRACEBACK"))


def _terminate(number: int, frame: FrameType | None) -> None:
    """SIGTERM, and SIGHUP of a closed terminal, unwind like Ctrl-C: a hand is stopped, unfinished files go."""
    raise SystemExit(128 + number)
