"""What can go wrong on a wire, on purpose and repeatably."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from types import MappingProxyType

# name -> default value of the number after the probability
KNOWN = MappingProxyType({
    "drop": 0.0,        # no reply
    "delay": 0.05,      # reply comes this many seconds late
    "corrupt": 0.0,     # one byte of the reply is changed
    "duplicate": 0.0,   # the reply is sent twice
    "echo": 0.0,        # the request is heard back before the reply
    "wrong_id": 0.0,    # another hand's id answers
    "garbage": 8.0,     # this many random bytes before the reply
    "split": 0.002,     # the reply comes in two parts, this many seconds apart
    "truncate": 0.0,    # the reply stops in the middle
})


@dataclass(frozen=True)
class Fault:
    probability: float
    value: float


@dataclass(frozen=True)
class Faults:
    """`drop:0.1,delay:0.05:0.02,echo` = name[:probability[:value]], probability 1 unless given."""

    active: dict[str, Fault] = field(default_factory=dict)

    @staticmethod
    def parse(text: str) -> Faults:
        active = {}
        for item in filter(None, text.split(",")):
            name, *numbers = item.split(":")
            if name not in KNOWN:
                raise ValueError(f"unknown fault {name!r}; known: {', '.join(KNOWN)}")
            try:
                probability = float(numbers[0]) if numbers else 1.0
                value = float(numbers[1]) if len(numbers) > 1 else KNOWN[name]
            except ValueError:
                raise ValueError(f"fault {item!r}: expected name[:probability[:value]]") from None
            if not 0.0 <= probability <= 1.0 or value < 0.0 or len(numbers) > 2:
                raise ValueError(f"fault {item!r}: expected a probability from 0 to 1 and a value from 0 on")
            active[name] = Fault(probability, value)
        return Faults(active)

    def strike(self, name: str, chance: random.Random) -> Fault | None:
        """The fault, if it happens this time."""
        fault = self.active.get(name)
        return fault if fault is not None and chance.random() < fault.probability else None
