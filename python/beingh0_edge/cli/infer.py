"""`beingh0 infer`: motion for one picture and one sentence, written to a folder."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from math import inf
from pathlib import Path

from ..files import staged
from ..policy import Policy, check_request, frame_for, open_bundle
from ..preprocess import read_image
from ..prompt import motion_question
from ..types import Observation
from .pictures import draw_motion
from .tables import timing_table


@dataclass(frozen=True)
class Request:
    """What was asked for on the command line; see `beingh0 infer --help`."""

    bundle: str
    image: Path
    task: str
    hands: str
    seconds: int
    seed: int
    greedy: bool
    intrinsics_px: tuple[float, float, float, float] | None
    temperature: float = 1.0

    def observation(self) -> Observation:
        """The observation. Raises ValueError or FileNotFoundError for what no bundle could answer."""
        motion_question(self.task, self.seconds, self.hands)
        if self.seed < 0:
            raise ValueError(f"--seed: expected a whole number from 0 on, got {self.seed}")
        if not 0 < self.temperature < inf:
            raise ValueError(f"--temperature: expected a number above 0, got {self.temperature}")
        warnings.filterwarnings("ignore", "Image size")  # Pillow's; read_image refuses such a picture by itself
        return Observation(read_image(self.image), self.task, self.intrinsics_px)


def run_infer(request: Request, out: Path) -> str:
    """Writes motion.npz, motion.json, overlay.png and overlay.mp4 into `out`; returns a table for people.

    Raises ValueError, FileNotFoundError, BundleError, BackendError.
    """
    observation = request.observation()
    bundle = open_bundle(request.bundle)
    check_request(bundle, request.seconds, request.hands)
    frame_for(bundle, observation)  # refuses intrinsics that show nothing of the photo
    with staged(out) as stage:
        policy = Policy.load(bundle)
        motion = policy.generate(observation, request.seconds, request.hands, greedy=request.greedy,
                                 seed=request.seed, temperature=request.temperature)
        motion.save(stage)
        draw_motion(stage, policy, observation, motion)
    return f"milliseconds\n{timing_table(motion)}\nwritten to {out}"
