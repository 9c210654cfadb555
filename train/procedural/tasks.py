"""Which instructions a scene gets, and how they are worded."""

from __future__ import annotations

import numpy as np

from beingh0_edge.train.procedural.motion import DIRECTIONS, VERBS, Task
from beingh0_edge.train.procedural.world import COLOURS, Scene, rng_of

VERB_ODDS = (0.6, 0.1, 0.1, 0.1, 0.1)  # pick, place, push, press, point

_PICK = ("pick up {the}", "pick {the} up", "grab {the}", "take {the}", "lift {the}", "grasp {the}",
         "pick up {the} please", "get hold of {the}")
_PLACE = ("pick up {the} and put it on the {plate}", "put {the} on the {plate}", "place {the} on the {plate}",
          "move {the} onto the {plate}")
_PUSH = ("push {the} {way}", "slide {the} {way}", "shove {the} {way}")
_PRESS = ("press {the}", "press down on {the}", "tap the top of {the}", "push down on {the} with a finger")
_POINT = ("point at {the}", "point to {the}", "show me {the}", "where is {the}")
_BOTH = ("pick up {the} with both hands", "lift {the} with both hands", "take {the} with two hands",
         "grab {the} with both hands")
_WAYS = {"to the left": "to the left", "to the right": "to the right", "away": "away from you",
         "closer": "closer to you"}
_TEMPLATES = {"pick": _PICK, "place": _PLACE, "push": _PUSH, "press": _PRESS, "point": _POINT}

REDUCED = 0.08  # share of instructions that name the colour only or the kind only


def wording(rng: np.random.Generator, scene: Scene, verb: str, hands: str, target: int, direction: str | None) -> str:
    """One sentence for a task."""
    thing = scene.objects[target]
    u = rng.random()
    name = f"the {thing.name}"
    if u < REDUCED / 2:
        name = f"the {thing.kind}"
    elif u < REDUCED:
        name = f"the {COLOURS[thing.colour]} one"
    templates = _BOTH if hands == "both" else _TEMPLATES[verb]
    template = templates[int(rng.integers(len(templates)))]
    plate = f"{COLOURS[scene.plate.colour]} plate" if scene.plate else ""
    return template.format(the=name, plate=plate, way=_WAYS[direction] if direction else "")


def make_tasks(scene: Scene, *, verb: str | None = None, hands: str | None = None) -> tuple[Task, Task, Task]:
    """Three tasks, one per object: same picture, same start, so only the words decide.

    The verb is one for the scene; so are the hands, drawn from those in the picture. `verb` and `hands` fix them.
    """
    rng = rng_of(scene.split, scene.seed, scene.index, 1)
    drawn = str(rng.choice(VERBS, p=VERB_ODDS))
    drawn_hands = str(rng.choice(("right", "left", "both"))) if scene.visible == "both" else scene.visible
    verb, hands = verb or drawn, hands or drawn_hands
    if hands == "both":
        verb = "pick"
    if verb == "place" and scene.plate is None:
        verb = "pick"
    out = []
    for target in range(3):
        direction = str(rng.choice(list(DIRECTIONS))) if verb == "push" else None
        out.append(Task(verb, hands, target, wording(rng, scene, verb, hands, target, direction), direction))
    return out[0], out[1], out[2]
