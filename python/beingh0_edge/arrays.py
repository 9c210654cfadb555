"""What callers may pass as an array, and how work on arrays is shared among threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from beingh0_edge.types import FloatArray

ArrayLike = npt.NDArray[Any]
FLOAT32, INT32 = np.dtype(np.float32), np.dtype(np.int32)


def as_array(value: Any) -> ArrayLike:
    """The value as a numpy array; what speaks DLPack (a torch tensor in CPU memory) is seen without a copy.

    Raises: ValueError for a tensor that numpy cannot see: on another device, of bfloat16, or one that has a gradient.
    """
    if isinstance(value, np.ndarray):
        return value
    if hasattr(value, "__dlpack__"):
        try:
            return np.from_dlpack(value)
        except (BufferError, RuntimeError, TypeError, ValueError) as error:
            got = " ".join(str(getattr(value, name)) for name in ("dtype", "device") if hasattr(value, name))
            raise ValueError("expected an array in CPU memory, of a dtype that numpy has and without a gradient, got "
                             f"{type(value).__name__} {got}: {error}") from error
    return np.asarray(value)


def as_float32(array: ArrayLike) -> FloatArray:
    """Contiguous float32. What is too large for it becomes infinite, for the caller's check of finite values."""
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(array, np.float32)


def output(name: str, shape: tuple[int, ...], given: ArrayLike | None,
           dtype: np.dtype[Any] = FLOAT32) -> ArrayLike:
    """`given` if results of that shape can be written into it, a new array if it is None. Raises: ValueError."""
    if given is None:
        return np.empty(shape, dtype)
    if given.shape != shape or given.dtype is not dtype or not given.flags.carray:
        raise ValueError(f"{name}: expected writeable, C-contiguous {dtype}{list(shape)}, "
                         f"got {given.dtype}{list(given.shape)}")
    return given


def shares(items: int, threads: int, at_least: int) -> list[slice]:
    """`items` cut into at most `threads` runs, as even as possible, none shorter than `at_least` unless alone."""
    count = max(1, min(threads, items // at_least))
    edges = [items * i // count for i in range(count + 1)]
    return [slice(a, b) for a, b in pairwise(edges)]


class Workers:
    """Runs tasks on the calling thread and `threads` - 1 others, never more. They sleep between calls."""

    def __init__(self, threads: int) -> None:
        """Raises: ValueError unless threads is a whole number from 1 to 256."""
        if isinstance(threads, bool) or not isinstance(threads, (int, np.integer)) or not 1 <= threads <= 256:
            raise ValueError(f"threads: expected a whole number from 1 to 256, got {threads!r}")
        self.threads = threads
        self._pool = ThreadPoolExecutor(threads - 1, "beingh0-kernels") if threads > 1 else None

    def run(self, tasks: Sequence[Callable[[], object]]) -> None:
        """Returns when all are done; raises what the first one that failed raised."""
        if self._pool is None or len(tasks) < 2:
            for task in tasks:
                task()
            return
        mine, others = tasks[:: self.threads], [t for i, t in enumerate(tasks) if i % self.threads]
        waiting = [self._pool.submit(task) for task in others]
        try:
            for task in mine:
                task()
        finally:
            for future in waiting:
                future.exception()  # wait for all: they write into the caller's arrays
        for future in waiting:
            future.result()
