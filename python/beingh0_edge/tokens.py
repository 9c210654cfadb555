"""Motion ids: where each one stands, which may come next, and how an answer becomes blocks.

An answer is a row of blocks `<mot>` id ... id `</mot>`, one per hand and second (seconds slowest, left before
right), then the end token. A block holds the ids of every tokenizer part in order (wrist, finger); the ids of
a part run over (group, step, layer) with the layer fastest. `N` below is the N of `<motion_id_N>`; ids are
vocabulary ids.

Two sets of rules choose what may be generated. `SlotRules` allows exactly the ids that can stand in a slot,
so a block is always whole. `OfficialRules` are the masks of the published code, for comparison with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from .errors import TokenError
from .types import IntArray, Side, sides_of

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class PartLayout:
    """The ids of one tokenizer part in a block: `groups` x `steps` x `layers`, each out of `codes` values.

    With `shared` all residual layers of a group use one codebook and one id range; otherwise layer l owns the
    ids from l * codes on. Groups always share their ids.
    """

    name: str
    groups: int
    steps: int
    layers: int
    codes: int
    shared: bool

    def __post_init__(self) -> None:
        sizes = (self.groups, self.steps, self.layers, self.codes)
        if min(sizes) < 1:
            raise ValueError(
                f"part {self.name!r}: groups, steps, layers and codes must be positive, got {sizes}")

    @property
    def ids_per_block(self) -> int:
        return self.groups * self.steps * self.layers

    @property
    def id_count(self) -> int:
        """How many different N the part uses."""
        return self.codes if self.shared else self.codes * self.layers


@dataclass(frozen=True)
class Slot:
    """One place in a block. Its N lies in [first, last]."""

    part: str
    group: int
    step: int
    layer: int
    first: int
    last: int


@dataclass(frozen=True)
class TokenLayout:
    """The special ids of a vocabulary and the shape of a block. Raises ValueError if they cannot fit
    together.
    """

    eos: int
    mot: int
    mot_end: int
    noop: int | None
    motion_ids: int
    parts: tuple[PartLayout, ...] = ()

    def __post_init__(self) -> None:
        inside = int(self.noop is not None and self.mot < self.noop < self.mot_end)
        if self.mot_end - self.mot - 1 - inside != self.motion_ids or self.motion_ids < 1:
            raise ValueError(
                f"token ids: between <mot> {self.mot} and </mot> {self.mot_end} there is room for "
                f"{self.mot_end - self.mot - 1 - inside} motion ids, got {self.motion_ids}")
        if inside and self.noop != self.mot_end - 1:
            raise ValueError(
                f"token ids: expected <MOT_NOOP> right before </mot> {self.mot_end}, got {self.noop}")
        if self.mot <= self.eos <= self.mot_end or self.eos < 0 or self.mot < 0:
            raise ValueError(f"token ids: the end token {self.eos} lies among the motion ids")
        needed = sum(part.id_count for part in self.parts)
        if self.parts and needed != self.motion_ids:
            raise ValueError(
                f"token ids: the motion tokenizer needs {needed} motion ids ("
                + ", ".join(f"{part.name} {part.id_count}" for part in self.parts)
                + f"), the vocabulary has {self.motion_ids}")

    @property
    def motion_id_0(self) -> int:
        return self.mot + 1

    @property
    def ids_per_block(self) -> int:
        """Ids of one hand and second. Raises ValueError when the parts are unknown (no motion tokenizer)."""
        if not self.parts:
            raise ValueError("this bundle has no motion tokenizer, so the length of a block is unknown")
        return sum(part.ids_per_block for part in self.parts)

    @cached_property
    def slots(self) -> tuple[Slot, ...]:
        """Every place of a block, in order."""
        slots, offset = [], 0
        for part in self.parts:
            for group in range(part.groups):
                for step in range(part.steps):
                    for layer in range(part.layers):
                        first = offset + (0 if part.shared else layer * part.codes)
                        slots.append(Slot(part.name, group, step, layer, first, first + part.codes - 1))
            offset += part.id_count
        return tuple(slots)

    def place(self, index: int, hands: str) -> tuple[int, Side, Slot]:
        """(second, side, slot) of the index-th motion id of an answer for `hands`."""
        sides = sides_of(hands)
        block, slot = divmod(index, self.ids_per_block)
        second, hand = divmod(block, len(sides))
        return second, sides[hand], self.slots[slot]

    def blocks(self, ids: Sequence[int] | IntArray, count: int, *, check_slots: bool = True) -> IntArray:
        """Reads an answer strictly.

        ids     vocabulary ids as generated: blocks `<mot>` ... `</mot>`, optionally the end token; no-ops are
                dropped
        count   blocks expected (seconds x hands)
        Returns int32[count, ids_per_block], the N of every id.
        Raises  TokenError naming the position: text inside or between blocks, an unfinished block, too few or
                too many ids, or (with check_slots) an id that cannot stand in its slot. Nothing is padded or
                dropped.
        """
        values: list[int] = []
        inside = ended = False
        for position, token in enumerate(int(i) for i in ids):
            if ended:
                raise TokenError(f"id {token} at position {position} after the end token", position)
            if token == self.mot and not inside:
                inside = True
            elif token == self.mot_end and inside:
                inside = False
            elif token == self.eos and not inside:
                ended = True
            elif inside and token == self.noop:
                continue
            elif inside and 0 <= token - self.motion_id_0 < self.motion_ids:
                values.append(token - self.motion_id_0)
            else:
                where = "inside a block" if inside else "between blocks"
                raise TokenError(f"id {token} at position {position} cannot stand {where}", position)
        if inside:
            raise TokenError(f"the last block is unfinished ({len(ids)} ids read)", len(ids))
        if len(values) != count * self.ids_per_block:
            raise TokenError(
                f"expected {count} x {self.ids_per_block} motion ids, got {len(values)}", len(ids))
        blocks = np.asarray(values, np.int32).reshape(count, self.ids_per_block)
        if check_slots:
            bad = np.argwhere((blocks < self._slot_first) | (blocks > self._slot_last))
            if len(bad):
                block, slot = (int(i) for i in bad[0])
                place = self.slots[slot]
                raise TokenError(
                    f"block {block}: <motion_id_{blocks[block, slot]}> cannot stand in slot {slot} "
                    f"({place.part} group {place.group} step {place.step} layer {place.layer}: "
                    f"{place.first} to {place.last})", slot)
        return blocks

    @cached_property
    def _slot_first(self) -> IntArray:
        return np.array([slot.first for slot in self.slots], np.int32)

    @cached_property
    def _slot_last(self) -> IntArray:
        return np.array([slot.last for slot in self.slots], np.int32)


class Vocabulary:
    """The rows of a language model's head: all ids ("full"), or the motion ids, their markers and the end
    token.

    In the trimmed layout row r is the id mot + r, and the last row is the end token.
    """

    def __init__(self, layout: TokenLayout, full_size: int | None = None) -> None:
        """full_size: number of ids of a full vocabulary; None means trimmed."""
        if full_size is not None and max(layout.eos, layout.mot_end) >= full_size:
            raise ValueError(f"the vocabulary has {full_size} rows, its token ids reach "
                             f"{max(layout.eos, layout.mot_end)}")
        self.layout = layout
        self.trimmed = full_size is None
        span = layout.mot_end - layout.mot + 1
        self.size = span + 1 if full_size is None else full_size
        first = 0 if self.trimmed else layout.mot
        self.mot = first
        self.motion_0 = first + 1
        self.mot_end = first + span - 1
        self.eos = span if self.trimmed else layout.eos

    def ids(self) -> IntArray:
        """int32[size]: the vocabulary id of every row."""
        if not self.trimmed:
            return np.arange(self.size, dtype=np.int32)
        layout = self.layout
        return np.append(np.arange(layout.mot, layout.mot_end + 1), layout.eos).astype(np.int32)

    def row(self, token: int) -> int:
        """The row of an id. Raises ValueError if the layout has none."""
        if not self.trimmed:
            if 0 <= token < self.size:
                return token
        elif token == self.layout.eos:
            return self.eos
        elif self.layout.mot <= token <= self.layout.mot_end:
            return token - self.layout.mot
        raise ValueError(f"id {token} has no row in this vocabulary of {self.size} rows")


class SlotRules:
    """Exactly `blocks` whole blocks, each id from its slot's range, then the end token."""

    def __init__(self, vocabulary: Vocabulary, blocks: int) -> None:
        if blocks < 1:
            raise ValueError(f"blocks: expected at least 1, got {blocks}")
        layout = vocabulary.layout
        motion = [slice(vocabulary.motion_0 + slot.first, vocabulary.motion_0 + slot.last + 1)
                  for slot in layout.slots]
        if not motion:
            raise ValueError("the slot rules need a motion tokenizer; this bundle has none")

        def only(row: int) -> slice:
            return slice(row, row + 1)

        block = [only(vocabulary.mot), *motion, only(vocabulary.mot_end)]
        self._windows = block * blocks + [only(vocabulary.eos)]
        self._next = 0

    def done(self) -> bool:
        """Whether the answer is complete."""
        return self._next == len(self._windows)

    @property
    def left(self) -> int:
        """Tokens still to come."""
        return len(self._windows) - self._next

    def allowed(self) -> slice:
        """The rows that may come next."""
        return self._windows[self._next]

    def push(self, row: int) -> None:
        self._next += 1


class OfficialRules:
    """The masks of the published code, applied to generated ids only, in its order:

    1. without `allow_non_motion`, inside a block: only `<mot>` .. `</mot>`;
    2. inside, once `block_length` ids stand after the last `<mot>`: only `</mot>`;
    3. once `max_blocks` blocks are closed: only the end token;
    4. before `min_blocks` blocks are closed: never the end token, and outside a block only `<mot>`.

    None switches rule 2, 3 or 4 off. The rules add up and may leave nothing, as in the published code.
    """

    def __init__(self, vocabulary: Vocabulary, *, max_blocks: int | None, min_blocks: int | None,
                 block_length: int | None, allow_non_motion: bool = True, closed_before: int = 0) -> None:
        self._v = vocabulary
        self._max, self._min, self._length = max_blocks, min_blocks, block_length
        self._free = allow_non_motion
        self._starts, self._ends, self._since, self._closed_before = 0, 0, 0, closed_before
        self._cache: dict[tuple[bool, ...], BoolArray | slice] = {}
        self._done = False

    def done(self) -> bool:
        """Whether the end token was pushed."""
        return self._done

    def allowed(self) -> BoolArray | slice:
        """bool[rows], or the one row that is left as a slice."""
        inside = self._starts > self._ends
        blocks = self._ends - self._closed_before
        key = (inside and not self._free,
               inside and self._length is not None and self._since >= self._length,
               self._max is not None and blocks >= self._max,
               self._min is not None and blocks < self._min,
               self._min is not None and blocks < self._min and not inside)
        if key not in self._cache:
            self._cache[key] = self._build(*key)
        return self._cache[key]

    def _build(
        self, motion_only: bool, close: bool, end: bool, no_end: bool, start: bool
    ) -> BoolArray | slice:
        v = self._v
        allowed = np.ones(v.size, np.bool_)
        if motion_only:
            allowed[: v.mot] = False
            allowed[v.mot_end + 1 :] = False
        for active, row in ((close, v.mot_end), (end, v.eos), (start, v.mot)):
            if active:
                keep = allowed[row]
                allowed[:] = False
                allowed[row] = keep
        if no_end:
            allowed[v.eos] = False
        rows = np.flatnonzero(allowed)
        return slice(int(rows[0]), int(rows[0]) + 1) if len(rows) == 1 else allowed

    def push(self, row: int) -> None:
        v = self._v
        if row == v.mot:
            self._starts += 1
            self._since = 0
            return
        self._since += 1
        if row == v.mot_end:
            self._ends += 1
        elif row == v.eos:
            self._done = True


Rules = SlotRules | OfficialRules
