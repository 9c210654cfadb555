"""The whole path: picture and instruction -> prompt -> motion ids -> hand motion, one hand and second at a
time.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np

from . import features, preprocess
from .backbone import Backbone, Ids, Sampling
from .bundle import Bundle, MotionSpec
from .errors import BackendError, BundleError, TokenError
from .hand_model import HandModel
from .hub import is_hub_id, local_folder
from .motion import Motion
from .motion_tokenizer import MotionTokenizer
from .prompt import TextTokenizer, motion_prompt, robot_prompt
from .robot import RobotHead
from .tokens import SlotRules
from .types import SIDES, FloatArray, HandMotion, IntArray, MotionChunk, Observation, Side, Timings, sides_of


class Policy:
    """A loaded bundle. One request at a time; a new one ends the one before.

    bundle, backbone, tokenizer (None without motion), hands (side -> HandModel), robot (None without robot
    mode)
    """

    def __init__(self, bundle: Bundle, *, threads: int | None = None) -> None:
        m = bundle.manifest
        self.bundle, self._m, self._layout = bundle, m, m.layout()
        self.backbone = Backbone(bundle, threads=threads)
        self.tokenizer = MotionTokenizer.load(*map(bundle.path, m.motion.folders)) if m.motion else None
        if m.motion and self.tokenizer:
            self._check_motion(m.motion, self.tokenizer)
        self.hands: dict[Side, HandModel] = {
            side: HandModel.load(bundle.path(m.hands[side].file), side) for side in SIDES if side in m.hands}
        self.robot = RobotHead(bundle.path(m.robot.file), m.robot, m.language.hidden) if m.robot else None
        self._text = TextTokenizer(bundle.path(m.tokenizer)) if m.tokenizer else None

    @classmethod
    def load(cls, bundle: str | Path | Bundle, *, threads: int | None = None) -> Policy:
        """Opens and checks a bundle (a folder, "nano" for the packaged one, or org/name on the Hugging Face hub).

        threads: default all cores but one. Raises BundleError, BackendError.
        """
        return cls(open_bundle(bundle), threads=threads)

    def stream(self, observation: Observation, seconds: int = 1, hands: str = "right", *, greedy: bool = True,
               seed: int | None = None, temperature: float = 1.0, top_k: int = 50,
               top_p: float = 1.0) -> Iterator[MotionChunk]:
        """Yields a chunk per hand and second as soon as it is decoded: second by second, left before right.

        seed, temperature, top_k, top_p matter when greedy is False.
        Raises ValueError or TypeError at once for a picture, instruction, hand or duration that cannot be.
        """
        sampling = Sampling(greedy, temperature, top_k, top_p, seed)
        return self._chunks(*self._prepare(observation, seconds, hands), sides_of(hands), seconds, sampling)

    def generate(
        self,
        observation: Observation,
        seconds: int = 1,
        hands: str = "right",
        *,
        greedy: bool = True,
        seed: int | None = None,
        temperature: float = 1.0,
        top_k: int = 50,
        top_p: float = 1.0,
    ) -> Motion:
        """The chunks of `stream` as one Motion, which can be saved."""
        sampling = Sampling(greedy, temperature, top_k, top_p, seed)
        prepared = self._prepare(observation, seconds, hands)
        chunks = tuple(self._chunks(*prepared, sides_of(hands), seconds, sampling))
        intrinsics = observation.intrinsics_px
        asked = {"seconds": int(seconds),
                 "intrinsics_px": None if intrinsics is None else [float(number) for number in intrinsics]}
        return Motion(chunks, observation.instruction, self._m.name, asdict(sampling) | asked)

    def frame(self, observation: Observation) -> preprocess.ImageArray:
        """uint8[S, S, 3]: the picture as the model sees it in motion generation."""
        return frame_for(self.bundle, observation)

    def _prepare(
        self, observation: Observation, seconds: int, hands: str
    ) -> tuple[FloatArray, IntArray, float]:
        """(pixels, prompt ids, milliseconds spent)"""
        started = time.perf_counter()
        if not isinstance(observation, Observation):
            raise TypeError(f"observation: expected an Observation, got {type(observation).__name__}")
        check_request(self.bundle, seconds, hands)
        text = motion_prompt(observation.instruction, seconds, hands, template=self._m.template,
                             image_tokens=self._m.vision.tokens)
        pixels = preprocess.normalize(self.frame(observation))
        return pixels, self._encode(text), 1e3 * (time.perf_counter() - started)

    def _chunks(self, pixels: FloatArray, prompt: IntArray, preprocess_ms: float, sides: tuple[Side, ...],
                seconds: int, sampling: Sampling) -> Iterator[MotionChunk]:
        clock = _Stopwatch()
        visual = self.backbone.vision.embed(pixels)
        vision_ms = clock.lap()
        rules = SlotRules(self.backbone.vocabulary, seconds * len(sides))
        ids = self.backbone.generate(self.backbone.embed(prompt, visual), rules, sampling)
        token = next(ids)  # the first <mot>: the prompt is read
        first = Timings(preprocess_ms=preprocess_ms, vision_ms=vision_ms, prefill_ms=clock.lap())
        for second in range(seconds):
            for side in sides:
                block = [token]
                while block[-1] != self._layout.mot_end:
                    block.append(next(ids))
                once = first if second == 0 and side == sides[0] else Timings()
                decode_ms = clock.lap()
                yield self._chunk(self._layout.blocks(block, 1)[0], side, float(second), once, decode_ms)
                clock.lap()
                token = next(ids)  # the next <mot>, or the end token

    def _chunk(
        self, ids: IntArray, side: Side, start_s: float, once: Timings, decode_ms: float
    ) -> MotionChunk:
        """Block of one hand and second -> motion and keypoints."""
        if self.tokenizer is None or self._m.motion is None:
            raise self._lacks("motion tokenizer")
        clock = _Stopwatch()
        vectors = self.tokenizer.decode(ids)
        rotation, trans_m, theta_rad, _ = features.split_features(vectors, self.tokenizer.parts)
        cam_from_wrist = np.tile(np.eye(4, dtype=np.float32), (len(vectors), 1, 1))
        cam_from_wrist[:, :3, :3], cam_from_wrist[:, :3, 3] = rotation, trans_m
        if not (np.isfinite(cam_from_wrist).all() and np.isfinite(theta_rad).all()):
            raise BackendError(f"the {side} hand's motion at {start_s} s is not finite")
        betas = np.array(self._m.hands[side].betas, np.float32)
        motion_ms = clock.lap()
        pose = np.zeros((len(vectors), 48), np.float32)  # no wrist rotation: keypoints in the wrist frame
        pose[:, 3:] = theta_rad.reshape(-1, 45)
        try:
            keypoints = self.hands[side].forward(pose, betas).joints
        except ValueError as error:  # finite, but too large for a hand
            raise BackendError(f"the {side} hand's motion at {start_s} s: {error}") from None
        motion = HandMotion(side, cam_from_wrist, theta_rad, betas, 1 / self._m.motion.fps)
        timings = Timings(
            once.preprocess_ms, once.vision_ms, once.prefill_ms, decode_ms, motion_ms, clock.lap()
        )
        return MotionChunk(motion, keypoints, start_s, ids, timings)

    def decode_block(self, ids: IntArray, side: Side, start_s: float = 0.0) -> MotionChunk:
        """The motion of one block: int[ids_per_block], the N of every <motion_id_N>.

        Raises TokenError for ids that are no block, ValueError for a side that the bundle does not have.
        """
        if side not in self.hands:
            raise ValueError(f"side: expected {' or '.join(self.hands)}, got {side!r}")
        ids = np.asarray(ids)
        if ids.shape != (self._layout.ids_per_block,):
            raise TokenError(f"ids: expected one block, int[{self._layout.ids_per_block}], got {list(ids.shape)}")
        return self._chunk(ids, side, start_s, Timings(), 0.0)

    def act(self, observation: Observation, proprio: FloatArray) -> FloatArray:
        """Robot mode: picture, instruction and joint positions -> float32[K, action_dim], as in the training
        data.

        Source: the published inference prompt (no chat template) and plain bicubic resize.
        """
        robot = self._robot()
        text = robot_prompt(observation.instruction, robot.spec.chunk_length, self._m.vision.tokens)
        frame = preprocess.robot_frame(observation.image_rgb, self._m.vision.image_size)
        return self.act_from_ids(self._encode(text), preprocess.normalize(frame), proprio)

    def act_from_ids(self, input_ids: Ids, pixel_values: FloatArray, proprio: FloatArray, *,
                     official_kxk: bool = False) -> FloatArray:
        """Robot mode on prompt ids: float32[K, action_dim].

        "action_token" reads one action at each of the K <ACTION_CHUNK_i> places. The other kinds decode a whole chunk
        from one state, as their names say: "prop_hidden" at the <PROP_CONTEXT> place, "last_hidden" at the last place.
        official_kxk  for these two, what the published code does instead: it reads a chunk at each of the K places
                      and returns all of them, float32[K * K, action_dim]
        """
        robot = self._robot()
        ids = np.asarray(input_ids).reshape(-1)
        places = np.flatnonzero(np.isin(ids, self._m.tokens.action_chunks))
        if len(places) != robot.spec.chunk_length:
            raise ValueError(
                f"input_ids: expected {robot.spec.chunk_length} <ACTION_CHUNK_i> places, "
                f"got {len(places)}"
            )
        if robot.spec.gen_action_type == "prop_hidden" and not official_kxk:
            places = np.flatnonzero(ids == self._m.tokens.prop_context)
        elif robot.spec.gen_action_type == "last_hidden" and not official_kxk:
            places = np.array([len(ids) - 1])
        visual = self.backbone.vision.embed(pixel_values)
        states = self.backbone.hidden(self.backbone.embed(ids, visual, robot.encode(proprio)))
        return robot.decode(states[places])

    def _check_motion(self, said: MotionSpec, found: MotionTokenizer) -> None:
        """Another layout would be decoded into something, and another rate would play it at another speed."""
        for name, expected, got in (("frames", said.frames, found.window), ("fps", said.fps, found.fps),
                                    ("parts", said.parts, tuple(part.layout for part in found.parts))):
            if expected != got:
                raise BundleError(f"{self.bundle.root}: motion.{name}: manifest.json says {expected}, the motion "
                                  f"tokenizer {got}", str(self.bundle.root))

    def _robot(self) -> RobotHead:
        if self.robot is None:
            raise self._lacks("robot mode")
        return self.robot

    def _encode(self, text: str) -> IntArray:
        if self._text is None:
            raise self._lacks("text tokenizer")
        return self._text.encode(text)

    def _lacks(self, what: str) -> BundleError:
        return _lacks(self.bundle, what)

    def close(self) -> None:
        """Frees the language model."""
        self.backbone.close()


def open_bundle(bundle: str | Path | Bundle) -> Bundle:
    """The bundle that `Policy.load` loads for this argument, checked. Raises BundleError, BackendError."""
    if isinstance(bundle, Bundle):
        return bundle
    return Bundle.open(local_folder(bundle) if is_hub_id(bundle) else bundle)


def check_request(bundle: Bundle, seconds: int, hands: str) -> None:
    """Raises the ValueError or BundleError of a bundle that cannot answer for so long or these hands, unloaded."""
    m = bundle.manifest
    for side in sides_of(hands):
        if side not in m.hands:
            raise _lacks(bundle, f"{side} hand model")
    if m.motion is None:
        raise _lacks(bundle, "motion tokenizer")
    if not m.motion.whole_hand():
        raise _lacks(bundle, f"motion of a whole hand, only {', '.join(part.name for part in m.motion.parts)}")
    if m.tokenizer is None:
        raise _lacks(bundle, "text tokenizer")
    whole = isinstance(seconds, (int, np.integer)) and not isinstance(seconds, bool)
    if not whole or not 1 <= seconds <= m.max_seconds:
        raise ValueError(f"seconds: expected a whole number from 1 to {m.max_seconds}, got {seconds!r}")


def frame_for(bundle: Bundle, observation: Observation) -> preprocess.ImageArray:
    """What `Policy.frame` gives, without loading the policy. Raises TypeError, ValueError."""
    p = bundle.manifest.preprocess
    return preprocess.motion_frame(
        observation.image_rgb, observation.intrinsics_px, camera=p.camera, size=bundle.manifest.vision.image_size,
        default_raw_camera=p.default_raw_camera)


def _lacks(bundle: Bundle, what: str) -> BundleError:
    return BundleError(f"{bundle.root}: this bundle has no {what}", str(bundle.root))


class _Stopwatch:
    def __init__(self) -> None:
        self._last = time.perf_counter()

    def lap(self) -> float:
        """Milliseconds since the last lap."""
        last, self._last = self._last, time.perf_counter()
        return 1e3 * (self._last - last)
