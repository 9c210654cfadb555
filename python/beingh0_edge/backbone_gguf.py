"""The language model in llama.cpp: embeddings and head rows in, logits and hidden states out.

One sequence, one context. The key-value cache is float32 and flash attention is off by default: then results
do not depend on how many tokens share a call, and an F32 file gives the reference logits to about 2e-5.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .bundle import LanguageSpec
from .errors import BackendError, BundleError
from .types import FloatArray

log = logging.getLogger(__name__)

_CONTEXT = 4096  # the longest published answer has 3096 ids
_PREFILL_ROWS = 512
_MOST_ROWS = 16
_ERROR_LEVEL = 4  # ggml's number for an error in its log
_F32 = 0  # ggml's number for the type of the key-value cache
_recent_errors: deque[str] = deque(maxlen=4)


def usable_threads(asked: int | None) -> int:
    """`asked`, or all cores but one, which is left to the hand: two spinning llama.cpp threads collapse when anything
    else runs. Raises ValueError.
    """
    if asked is None:
        return max(1, len(os.sched_getaffinity(0)) - 1)
    if isinstance(asked, bool) or not isinstance(asked, (int, np.integer)) or asked < 1:
        raise ValueError(f"threads: expected a whole number from 1 on, got {asked!r}")
    return int(asked)


class LlamaEngine:
    """Not for two requests at a time; Backbone sees to that."""

    def __init__(
        self,
        path: Path,
        spec: LanguageSpec,
        *,
        threads: int | None = None,
        context: int | None = None,
        flash_attention: bool = False,
    ) -> None:
        """
        threads          default: all cores but one
        context          longest sequence in tokens; default 4096, whatever the model's own limit: rotary positions
                         go on beyond it, as in the published code
        flash_attention  about 6 % faster prefill and 10 % faster decoding, results then vary with the batch
                         size
        Raises           BundleError if llama.cpp refuses the file, BackendError if llama.cpp is not there.
        """
        threads = usable_threads(threads)
        api = _llama(threads)
        self.threads, self.context = threads, context or _CONTEXT
        self.rows, self.hidden_size = spec.rows, spec.hidden
        self._api, self._context, self._length = api, None, 0
        self._lock = threading.Lock()
        model_params = api.llama_model_default_params()
        model_params.check_tensors = True
        _recent_errors.clear()
        with _signals_after():
            self._model = api.llama_model_load_from_file(os.fsencode(path), model_params)
        if not self._model:
            raise BundleError(f"{path}: llama.cpp refuses it: {_reason()}", str(path))
        params = api.llama_context_default_params()
        params.n_ctx = self.context
        params.n_batch = params.n_ubatch = min(_PREFILL_ROWS, self.context)
        params.n_seq_max = 1
        params.n_threads = params.n_threads_batch = threads
        params.pooling_type = api.LLAMA_POOLING_TYPE_NONE
        params.flash_attn_type = (api.LLAMA_FLASH_ATTN_TYPE_ENABLED if flash_attention
                                  else api.LLAMA_FLASH_ATTN_TYPE_DISABLED)
        params.type_k = params.type_v = _F32
        params.no_perf = True
        with _signals_after():
            self._context = api.llama_init_from_model(self._model, params)
        if not self._context:
            self.close()
            raise BackendError(f"llama.cpp cannot run {path}: {_reason()}", "llama.cpp")
        got = api.llama_vocab_n_tokens(api.llama_model_get_vocab(self._model))
        if got != spec.rows:
            self.close()
            raise BundleError(f"{path}: expected a vocabulary of {spec.rows} rows, got {got}", str(path))
        self._memory = api.llama_get_memory(self._context)
        self._batch = _Batch(api, _PREFILL_ROWS)

    def prefill(self, embeddings: FloatArray) -> FloatArray:
        """Starts a sequence with float32[T, hidden]. Returns float32[rows], the logits after the last one."""
        last: FloatArray = self._read_embeddings(embeddings, every=False)[-1]
        return last

    def logits(self, embeddings: FloatArray) -> FloatArray:
        """Starts a sequence with float32[T, hidden]. Returns float32[T, rows]."""
        return self._read_embeddings(embeddings, every=True)

    def hidden(self, embeddings: FloatArray) -> FloatArray:
        """Starts a sequence with float32[T, hidden]. Returns float32[T, hidden], states after the final
        norm.
        """
        with self._lock:
            self._api.llama_set_embeddings(self._open(), True)
        try:
            return self._read_embeddings(embeddings, every=True, states=True)
        finally:
            with self._lock:
                self._api.llama_set_embeddings(self._open(), False)

    def advance(self, rows: list[int]) -> FloatArray:
        """Continues the sequence with 1 to 16 head rows.

        Returns float32[rows], the logits after the last one: a view that is valid until the next call.
        """
        if not 1 <= len(rows) <= _MOST_ROWS:
            raise ValueError(f"rows: expected 1 to {_MOST_ROWS}, got {len(rows)}")
        with self._lock:
            context = self._open()
            self._fits(len(rows))
            self._batch.tokens(rows, self._length)
            self._decode(context, len(rows))
            pointer = self._api.llama_get_logits_ith(context, -1)
            last: FloatArray = self._view(pointer, self.rows)[0]
            return last

    @property
    def length(self) -> int:
        """Tokens in the sequence."""
        return self._length

    def close(self) -> None:
        """Frees model and cache; calling it again does nothing."""
        with self._lock:
            if self._context:
                self._api.llama_free(self._context)
                self._context = None
            if self._model:
                self._api.llama_model_free(self._model)
                self._model = None

    def __del__(self) -> None:
        if getattr(self, "_model", None):
            self.close()

    def _open(self) -> Any:
        if not self._context:
            raise BackendError("this model is closed", "llama.cpp")
        return self._context

    def _fits(self, more: int) -> None:
        if self._length + more > self.context:
            raise ValueError(f"the request needs more than the context of {self.context} tokens")

    def _decode(self, context: Any, count: int) -> None:
        status = self._api.llama_decode(context, self._batch.struct)
        if status != 0:
            raise BackendError(f"llama.cpp failed with status {status}: {_reason()}", "llama.cpp")
        self._length += count

    def _read_embeddings(self, embeddings: FloatArray, *, every: bool, states: bool = False) -> FloatArray:
        values = np.ascontiguousarray(embeddings, np.float32)
        if values.ndim != 2 or values.shape[1] != self.hidden_size or len(values) == 0:
            raise ValueError(f"embeddings: expected float32[T, {self.hidden_size}], got {list(values.shape)}")
        api = self._api
        width = self.hidden_size if states else self.rows
        parts = []
        with self._lock:
            context = self._open()
            api.llama_memory_clear(self._memory, False)
            self._length = 0
            self._fits(len(values))
            for first in range(0, len(values), self._batch.size):
                part = values[first : first + self._batch.size]
                last = first + len(part) == len(values)
                self._batch.embeddings(part, first, every=every, last=last)
                self._decode(context, len(part))
                if every or last:
                    pointer = api.llama_get_embeddings(context) if states else api.llama_get_logits(context)
                    parts.append(self._view(pointer, width, len(part) if every else 1).copy())
        return np.concatenate(parts)

    @staticmethod
    def _view(pointer: Any, width: int, count: int = 1) -> FloatArray:
        """float32[count, width] over llama.cpp's own memory."""
        if not pointer:
            raise BackendError("llama.cpp gave no output", "llama.cpp")
        values: FloatArray = np.ctypeslib.as_array(pointer, (count, width))
        return values


class _Batch:
    """A llama_batch over arrays of our own, for up to `size` tokens of sequence 0."""

    def __init__(self, api: Any, size: int) -> None:
        self.size = size
        self._positions = np.zeros(size, np.int32)
        self._outputs = np.zeros(size, np.int8)
        self._tokens = np.zeros(size, np.int32)
        self._counts = np.ones(size, np.int32)
        self._sequence = ctypes.c_int32(0)
        pointer = ctypes.POINTER(ctypes.c_int32)
        self._sequences = (pointer * size)(*[ctypes.pointer(self._sequence)] * size)
        self._values: FloatArray | None = None
        self._float = ctypes.POINTER(ctypes.c_float)
        self._token_pointer = self._tokens.ctypes.data_as(pointer)
        self.struct = api.llama_batch(
            n_tokens=0,
            pos=self._positions.ctypes.data_as(pointer),
            n_seq_id=self._counts.ctypes.data_as(pointer),
            seq_id=ctypes.cast(self._sequences, ctypes.POINTER(pointer)),
            logits=self._outputs.ctypes.data_as(ctypes.POINTER(ctypes.c_int8)),
        )

    def tokens(self, rows: list[int], first: int) -> None:
        n = len(rows)
        self._tokens[:n] = rows
        self.struct.token, self.struct.embd = self._token_pointer, None
        self._place(n, first, every=False, last=True)

    def embeddings(self, values: FloatArray, first: int, *, every: bool, last: bool) -> None:
        self._values = values  # keeps the memory alive while llama.cpp reads it
        self.struct.token, self.struct.embd = None, values.ctypes.data_as(self._float)
        self._place(len(values), first, every, last)

    def _place(self, n: int, first: int, every: bool, last: bool) -> None:
        self.struct.n_tokens = n
        self._positions[:n] = np.arange(first, first + n)
        self._outputs[:n] = every
        if last:
            self._outputs[n - 1] = 1


@contextmanager
def _signals_after() -> Iterator[None]:
    """Signals that Python handles wait for the end of the block.

    While llama.cpp loads, Python runs only in its log callback, and an exception cannot leave that: Ctrl-C was lost.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # handlers run in the main thread
        return
    came: list[int] = []
    handlers = {number: handler for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
                if callable(handler := signal.getsignal(number))}
    for number in handlers:
        signal.signal(number, lambda number, _frame: came.append(number))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for late in came:
            signal.raise_signal(late)


def _reason() -> str:
    return "; ".join(_recent_errors) or "no reason given"


def _forward_log(level: int, text: bytes, _data: npt.NDArray[Any] | None) -> None:
    line = text.decode(errors="replace").strip()
    if level == _ERROR_LEVEL:
        _recent_errors.append(line)
    if line:
        log.debug("llama.cpp: %s", line)


_log_callback: Any = None


@cache
def _llama(threads: int) -> Any:
    """The llama_cpp module with its log in ours. Raises BackendError if it is missing or too old."""
    global _log_callback
    if threads > 1:
        # Read when libgomp loads: threads that wait must sleep, or one busy neighbour stalls them all.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        import llama_cpp
    except (ImportError, OSError, RuntimeError) as error:
        raise BackendError(f"llama-cpp-python does not load ({error}): pip install llama-cpp-python",
                           "llama.cpp") from error
    if not hasattr(llama_cpp, "LLAMA_FLASH_ATTN_TYPE_DISABLED"):
        raise BackendError(f"llama-cpp-python {llama_cpp.__version__} is too old: "
                           "pip install --upgrade llama-cpp-python", "llama.cpp")
    if _log_callback is None:
        # Kept for good: llama.cpp calls it whenever it likes, also after a collected one would be gone.
        _log_callback = llama_cpp.llama_log_callback(_forward_log)
        llama_cpp.llama_log_set(_log_callback, None)
        llama_cpp.llama_backend_init()
    return llama_cpp
