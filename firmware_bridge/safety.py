"""When the bridge stops by itself; docs/safety.md tells the whole story."""

from __future__ import annotations

from dataclasses import dataclass, fields
from numbers import Integral, Real

from beingh0_edge.firmware_bridge import _bridge


@dataclass(frozen=True)
class Safety:
    """When the bridge stops by itself. Every value has bounds; a value outside them is refused (ValueError).

    Each hand brings its own (`HANDS[name].safety`); `dataclasses.replace` changes single values of it.

    hold_after_s        no newer trajectory for this long after the last one ended: state hold, pose kept
    freeze_after_s      still none: the measured pose becomes the target, and moving again needs arm()
    release_after_s     no newer trajectory for this long, or stopped for this long: hands that can take the force out
                        of their joints, which drops what they hold; None: never
    release_on_fault    fault, e-stop and a stale pose take the force out at once instead of holding: for hands that
                        are driven by torques
    feedback_stale_s    no valid pose from the hand for this long: freeze
    consecutive_errors  failed transactions in a row: fault
    error_rate          share of transactions failed within the last second: fault
    resume_within_rad   a trajectory ends a hold without arm() only if it starts this close to the held pose
    max_temperature_c   of any joint: fault (besides the hand's own limit)
    max_current_a       of any joint: fault (besides the hand's own limit)
    ignored_error_bits  error bits of the hand that are reported but are no fault
    blend_s             least time from the commanded state into a new trajectory
    """

    hold_after_s: float = 0.15
    freeze_after_s: float = 2.0
    release_after_s: float | None = None
    release_on_fault: bool = False
    feedback_stale_s: float = 0.1
    consecutive_errors: int = 5
    error_rate: float = 0.2
    resume_within_rad: float = 0.5
    max_temperature_c: float = 70.0
    max_current_a: float = 2.0
    ignored_error_bits: int = 0
    blend_s: float = 0.1

    _BOUNDS = {  # noqa: RUF012  (a constant of the class, not a field)
        "hold_after_s": (0.02, 1.0),
        "freeze_after_s": (0.02, 30.0),
        "release_after_s": (0.1, 3600.0),
        "release_on_fault": (0, 1),
        "feedback_stale_s": (0.02, 0.5),
        "consecutive_errors": (1, 20),
        "error_rate": (0.01, 0.5),
        "resume_within_rad": (0.0, 1.0),
        "max_temperature_c": (30.0, 90.0),
        "max_current_a": (0.05, 3.0),
        "ignored_error_bits": (0, 0xFFFFFFFF),
        "blend_s": (0.02, 2.0),
    }

    def __post_init__(self) -> None:
        for field in fields(self):
            low, high = self._BOUNDS[field.name]
            value = getattr(self, field.name)
            if value is None and field.name == "release_after_s":
                continue
            kind = Integral if isinstance(field.default, int) else Real
            fits = isinstance(value, kind) and isinstance(value, bool) == (field.name == "release_on_fault")
            if not fits or not low <= value <= high:
                whole = "a whole number from " if kind is Integral else ""
                raise ValueError(f"Safety.{field.name}: expected {whole}{low:g} to {high:g}, got {value!r}")
        if self.freeze_after_s < self.hold_after_s:
            raise ValueError("Safety.freeze_after_s: expected at least hold_after_s "
                             f"({self.hold_after_s:g} s), got {self.freeze_after_s:g} s")

    def native(self) -> _bridge.Safety:
        native = _bridge.Safety()
        for field in fields(self):
            if field.name not in ("ignored_error_bits", "release_after_s"):
                setattr(native, field.name, getattr(self, field.name))
        native.release_after_s = -1.0 if self.release_after_s is None else self.release_after_s
        native.fault_mask = 0xFFFFFFFF & ~self.ignored_error_bits
        return native
