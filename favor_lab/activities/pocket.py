"""The pocket world: drawn activity scenes that know what is true of them.

Sixteen activities, named as in Stanford 40, in four sets that share the activities and differ in look and camera. A
scene is a pure function of its key ``<set>/<split>/<index>``: splits can never overlap, and nothing depends on the
machine (between versions of Pillow, pixels of sketch and cctv can differ in the last digits; the truth cannot). Besides
its image a scene gives its *truth*: joints, boxes of things, and every statement that holds.

Activities are compositions of evidence (legs, hands, a thing in use, things nearby). The ``pretrain`` split also
holds free compositions that are no activity at all, so that a policy can learn to see without learning the names.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from random import Random

import numpy as np
from PIL import Image

from . import things
from .figures import Body, Shape, ellipse, person, random_body, rectangle, shaded, stroke
from .looks import LOOKS, corner_camera
from .poses import Point, Pose, pose_of, reach, skeleton
from .surroundings import backdrop, occluder

SETS = ("cartoon", "sketch", "thermal", "cctv")
SPLITS = ("pretrain", "train", "validation", "test")
IMAGE_SIZE = 140  # pixels a side: 100 patches of 14 x 14, 25 image tokens

# -------------------------------------------------------------------------------- what can be said

LEGS = {
    "standing": "standing",
    "walking": "taking a step",
    "running": "long stride",
    "jumping": "feet off the ground",
    "sitting": "sitting",
    "cycling": "feet on pedals",
    "climbing": "feet on a wall",
}
HANDS = {
    "up": "one hand up",
    "ear": "hand at the ear",
    "mouth": "hand at the mouth",
    "eyes": "hands at the eyes",
    "clap": "hands together",
    "chest": "hands at the chest",
    "handle": "hands forward",
    "rod": "hands forward",
    "bars": "hands forward",
    "low": "one hand forward",
    "board": "one hand forward",
    "shaft": "one hand forward",
    "bow": "arms drawn apart",
    "swing": "arms swinging",
    "hold": "hands reaching up",
}
USES = {
    "phone": "phone at the ear",
    "cup": "cup at the mouth",
    "book": "open book in the hands",
    "camera": "camera at the eyes",
    "umbrella": "umbrella over the head",
    "bow": "bow in the hands",
    "fishing rod": "fishing rod in the hands",
    "cart": "cart at the hands",
    "dog": "dog on a leash",
    "bike": "bike under the person",
    "board": "board at the hand",
    "rock wall": "rock wall at the hands",
}
NEARBY = ("bike", "cart", "dog", "board", "rock wall", "tree", "bench", "lamp", "ball", "water", "second person")
THINGS = tuple(sorted(set(USES) | set(things.SMALL) | set(NEARBY)))
STATEMENTS = tuple(
    dict.fromkeys(
        [
            *LEGS.values(),
            "arms down",
            "both hands up",
            *HANDS.values(),
            *USES.values(),
            *[f"{name} in a hand" for name in things.SMALL],
            *[f"{name} nearby" for name in NEARBY],
        ]
    )
)
JOINTS = (
    "head",
    "neck",
    "shoulder_far",
    "shoulder_near",
    "elbow_far",
    "elbow_near",
    "hand_far",
    "hand_near",
    "hip_far",
    "hip_near",
    "knee_far",
    "knee_near",
    "foot_far",
    "foot_near",
)


@dataclass(frozen=True)
class Plan:
    """The evidence that makes an activity: ways of standing and of holding the hands (far, near), the thing in use."""

    legs: tuple[str, ...]
    hands: tuple[tuple[str, str], ...]
    use: str | None = None
    turn: tuple[float, float] = (0.0, 1.0)
    nod: float = 0.0


PLANS = {
    "applauding": Plan(("standing", "standing", "sitting"), (("clap", "clap"),), None, (0.0, 0.75)),
    "climbing": Plan(("climbing",), (("hold", "hold"),), "rock wall", (0.8, 1.0)),
    "drinking": Plan(("standing", "sitting"), (("down", "mouth"),), "cup", (0.1, 1.0)),
    "fishing": Plan(("standing", "sitting"), (("rod", "rod"),), "fishing rod", (0.6, 1.0)),
    "holding an umbrella": Plan(("standing", "walking"), (("down", "shaft"),), "umbrella", (0.2, 1.0)),
    "jumping": Plan(("jumping",), (("up", "up"), ("up", "up"), ("swing", "swing")), None, (0.0, 0.7)),
    "phoning": Plan(("standing", "walking", "sitting"), (("down", "ear"),), "phone", (0.0, 0.8)),
    "pushing a cart": Plan(("walking", "standing"), (("handle", "handle"),), "cart", (0.75, 1.0)),
    "reading": Plan(("standing", "sitting", "sitting"), (("chest", "chest"),), "book", (0.0, 0.9), 0.3),
    "riding a bike": Plan(("cycling",), (("bars", "bars"),), "bike", (0.85, 1.0)),
    "running": Plan(("running",), (("swing", "swing"),), None, (0.75, 1.0)),
    "shooting an arrow": Plan(("standing",), (("bow", "bow"),), "bow", (0.55, 0.9)),
    "taking photos": Plan(("standing", "standing", "sitting"), (("eyes", "eyes"),), "camera", (0.0, 1.0)),
    "walking the dog": Plan(("walking", "standing"), (("down", "low"),), "dog", (0.75, 1.0)),
    "waving hands": Plan(("standing",), (("down", "up"), ("up", "up")), None, (0.0, 0.6)),
    "writing on a board": Plan(("standing",), (("down", "board"),), "board", (0.75, 1.0)),
}
ACTIVITIES = tuple(PLANS)
FREE_HANDS: tuple[tuple[tuple[str, str], str | None], ...] = (
    (("down", "down"), None),
    (("down", "up"), None),
    (("up", "up"), None),
    (("down", "ear"), "phone"),
    (("up", "ear"), "phone"),
    (("down", "mouth"), "cup"),
    (("up", "mouth"), "cup"),
    (("eyes", "eyes"), "camera"),
    (("clap", "clap"), None),
    (("chest", "chest"), "book"),
    (("handle", "handle"), "cart"),
    (("down", "low"), "dog"),
    (("up", "low"), "dog"),
    (("bow", "bow"), "bow"),
    (("rod", "rod"), "fishing rod"),
    (("down", "board"), "board"),
    (("down", "shaft"), "umbrella"),
    (("up", "shaft"), "umbrella"),
    (("swing", "swing"), None),
    (("hold", "hold"), None),
)


@dataclass(frozen=True)
class Truth:
    """What is true of a scene. Points and boxes are in picture units (0..1, y down)."""

    statements: tuple[str, ...]  # every statement that holds, most telling first: legs, hands, thing in use, nearby
    joints: dict[str, Point]
    objects: dict[str, tuple[float, float, float, float]]  # thing -> x0, y0, x1, y1

    @property
    def nearby(self) -> tuple[str, ...]:
        return tuple(s for s in self.statements if s.endswith(("nearby", "in a hand")))


@dataclass(frozen=True)
class Scene:
    image: Image.Image
    label: str | None  # None: a free composition, no activity (pretrain split only)
    truth: Truth
    source: str  # "<set>/<split>/<index>"


# -------------------------------------------------------------------------------- from plan to shapes


USE: dict[str, Callable[[dict[str, Point], Random, float], things.Layers]] = {
    "phone": things.use_phone,
    "cup": things.use_cup,
    "book": things.use_book,
    "camera": things.use_camera,
    "umbrella": things.use_umbrella,
    "bow": things.use_bow,
    "fishing rod": things.use_rod,
    "cart": lambda j, r, t: ([], things.cart(j["hand_near"][0] - 0.02, r)),
    "bike": lambda j, r, t: (things.bike(0.0, r), []),
    "board": lambda j, r, t: (things.board(j["hand_near"][0] - 0.06, r), []),
    "rock wall": lambda j, r, t: (things.wall(j["hand_near"][0] - 0.08, r), []),
    "dog": lambda j, r, t: (things.dog(0.62, r), things.leash(j, 0.62)),
}


@dataclass
class Figure:
    """A person with what they use, in body units."""

    shapes: list[Shape] = field(default_factory=list)
    joints: dict[str, Point] = field(default_factory=dict)
    boxes: dict[str, list[Shape]] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)


def compose(plan: Plan, r: Random, body: Body) -> Figure:
    """One person following a plan, the thing in use, and what can be said of both."""
    legs, spots, turn = r.choice(plan.legs), r.choice(plan.hands), r.uniform(*plan.turn)
    turn = max(turn, {"cycling": 0.8, "climbing": 0.8, "running": 0.8, "sitting": 0.6}.get(legs, 0.0))
    pose = pose_of(legs, turn, plan.nod, r)
    hands, elbows = reach(spots, pose, r)
    joints = skeleton(pose, hands, elbows)
    out = Figure(joints=joints, said=[LEGS[legs], *said_of_hands(spots)])
    behind, before = person(body, pose, joints)
    back: list[Shape] = []
    front: list[Shape] = []
    support = {"cycling": "bike", "climbing": "rock wall"}.get(legs)
    for use in dict.fromkeys(u for u in (support, plan.use) if u):
        low, high = USE[use](joints, r, turn)
        if use == "fishing rod":
            low = things.water(joints["hand_near"][0], r) + low
            out.said.append(USES[use])
            out.boxes["water"] = low
            out.said.append("water nearby")
        else:
            out.said.append(USES[use])
        out.boxes[use] = [*low, *high] if use != "fishing rod" else high
        back, front = back + low, front + high
    if spots[0] == "down" and r.random() < 0.15:
        name = r.choice([s for s in things.SMALL if s != plan.use])
        held = things.SMALL[name](joints["hand_far"], r)
        out.boxes[name], front = held, front + held
        out.said.append(f"{name} in a hand")
    out.shapes = [*seat(legs, pose, r), *back, *behind, *before, *front]
    if legs == "jumping":
        out.shapes.insert(0, ellipse((0.0, -0.01), 0.2, 0.03, (120, 116, 110), 0.25, outline=False))
    if spots == ("clap", "clap"):
        out.shapes += clap_marks(joints)
    return out


def said_of_hands(spots: tuple[str, str]) -> list[str]:
    """Statements about the hands; a hanging hand beside a busy one is not worth a word."""
    if spots == ("down", "down"):
        return ["arms down"]
    if spots == ("up", "up"):
        return ["both hands up"]
    return list(dict.fromkeys(HANDS[s] for s in reversed(spots) if s != "down"))


def clap_marks(j: dict[str, Point]) -> list[Shape]:
    """Three short lines over hands that meet."""
    x, y = things.mid(j["hand_far"], j["hand_near"])
    return [
        stroke([(x + dx * 0.6, y + 0.055), (x + dx, y + 0.10)], 0.013, (60, 56, 60), 0.5, outline=False)
        for dx in (-0.05, 0.0, 0.05)
    ]


def seat(legs: str, pose: Pose, r: Random) -> list[Shape]:
    """A box or a stool under somebody who sits; nothing under anybody else."""
    if legs != "sitting":
        return []
    colour = r.choice(((150, 104, 62), (110, 116, 128), (186, 92, 70), (90, 130, 150)))
    if r.random() < 0.5:
        return [rectangle((-0.02, 0.11), 0.26, 0.22, colour, 0.3)]
    legs_of_stool = [
        stroke([(-0.02 + dx, 0.2), (-0.02 + dx * 1.2, 0.0)], 0.03, shaded(colour, 0.8), 0.28) for dx in (-0.1, 0.1)
    ]
    return [*legs_of_stool, stroke([(-0.13, 0.215), (0.10, 0.215)], 0.045, colour, 0.33)]


def free_plan(r: Random) -> Plan:
    """Evidence without an activity: any legs with any hands; the thing that would fit them is often missing."""
    hands, use = r.choice(FREE_HANDS)
    legs = r.choice(tuple(LEGS))
    if r.random() < 0.4:
        use = None
    side = use in ("cart", "dog", "board", "fishing rod") or legs in ("cycling", "climbing", "running")
    return Plan((legs,), (hands,), use, (0.75, 1.0) if side else (0.0, 1.0), r.choice((0.0, 0.0, 0.3)))


# -------------------------------------------------------------------------------- from shapes to a scene


@dataclass(frozen=True)
class Place:
    """Body units to picture units: scale, flip, and the point of the picture where the feet stand."""

    x: float
    y: float
    scale: float
    flip: int

    def map(self, points: np.ndarray) -> np.ndarray:
        return np.stack([self.x + self.flip * self.scale * points[:, 0], self.y - self.scale * points[:, 1]], 1)

    def shapes(self, shapes: list[Shape]) -> list[Shape]:
        return [
            Shape(self.map(s.points), s.colour, s.heat, None if s.width is None else s.width * self.scale, s.outline)
            for s in shapes
        ]


def bounds(shapes: list[Shape]) -> tuple[float, float, float, float]:
    """The box (x0, y0, x1, y1) around all points of some shapes."""
    points = np.concatenate([s.points for s in shapes])
    return (float(points[:, 0].min()), float(points[:, 1].min()), float(points[:, 0].max()), float(points[:, 1].max()))


def settle(shapes: list[Shape], margin: float, r: Random) -> Place:
    """Scale and place a figure so that all of it lies inside the picture, the ground low in it."""
    x0, y0, x1, y1 = bounds(shapes)
    room = 1 - 2 * margin
    scale = min(r.uniform(0.60, 0.80), room / (x1 - x0), room / (y1 - min(y0, 0.0)))
    flip = r.choice((-1, 1))
    left, right = (x0, x1) if flip == 1 else (-x1, -x0)
    x = r.uniform(margin - left * scale, 1 - margin - right * scale)
    x = 0.6 * x + 0.4 * (0.5 - scale * (left + right) / 2)
    lowest, highest = 1 - margin + min(y0, 0.0) * scale, margin + y1 * scale
    return Place(x, max(highest, lowest - r.uniform(0.0, 0.08)), scale, flip)


def neighbours(
    main: Place, taken: tuple[float, float], busy: set[str], horizon: float, r: Random
) -> list[tuple[str, list[Shape]]]:
    """None, one or two things beside the person, further back, with no regard for the activity."""
    names = [n for n in NEARBY if n not in busy]
    found: list[tuple[str, list[Shape]]] = []
    sides = [("left", taken[0]), ("right", 1 - taken[1])]
    r.shuffle(sides)
    for name, (side, room) in zip(r.sample(names, r.choice((0, 1, 1, 2))), sides, strict=False):
        if room < 0.12:
            continue
        shapes = (
            bystander(r)
            if name == "second person"
            else things.water(-0.33, r)
            if name == "water"
            else things.GROUND[name](0.0, r)
        )
        x0, _, x1, y1 = bounds(shapes)
        scale = main.scale * r.uniform(0.62, 0.86)
        scale = min(scale, (room + 0.10) / (x1 - x0) if name != "rock wall" else scale, 0.9 / y1)
        middle = room / 2 + r.uniform(-0.02, 0.02)
        flip = r.choice((-1, 1))
        x = (middle if side == "left" else 1 - middle) - flip * scale * (x0 + x1) / 2
        ground = min(main.y - 0.02, horizon + 0.6 * (main.y - horizon) * r.uniform(0.3, 1.0) + 0.02)
        found.append((name, Place(x, ground, scale, flip).shapes(shapes)))
    return found


def bystander(r: Random) -> list[Shape]:
    """The shapes of somebody else, standing idle."""
    figure = Plan(("standing",), (("down", "down"),), None, (0.0, 1.0))
    pose = pose_of("standing", r.uniform(*figure.turn), 0.0, r)
    hands, elbows = reach(("down", "down"), pose, r)
    behind, before = person(random_body(r), pose, skeleton(pose, hands, elbows))
    return behind + before


def draw_scene(set_name: str, split: str, index: int, size: int = IMAGE_SIZE) -> Scene:
    """Draw one scene of the pocket world.

    Args:
        set_name: one of :data:`SETS`.
        split: one of :data:`SPLITS`. In all but ``pretrain`` the label is ``ACTIVITIES[index % 16]``; in ``pretrain``
            every second scene is a free composition with label None.
        index: 0 or more.
        size: pixels a side; the same scene can be drawn at any size.

    Raises:
        ValueError: unknown set or split, negative index.

    >>> scene = draw_scene("cartoon", "test", 6)
    >>> scene.label, scene.image.size, "phone at the ear" in scene.truth.statements
    ('phoning', (140, 140), True)
    """
    check_key(set_name, split, index)
    source = f"{set_name}/{split}/{index:06d}"
    r = Random(f"favor_lab pocket 1: {source}")
    free = split == "pretrain" and index % 2 == 1
    label = None if free else ACTIVITIES[(index // 2 if split == "pretrain" else index) % len(ACTIVITIES)]
    figure = compose(PLANS[label] if label else free_plan(r), r, random_body(r))
    place = settle(figure.shapes, 0.11 if set_name == "cctv" else 0.05, r)
    horizon = place.y - r.uniform(0.06, 0.22)
    front = place.shapes(figure.shapes)
    x0, _, x1, _ = bounds(front)
    near = neighbours(place, (x0, x1), set(figure.boxes), horizon, r)
    back = backdrop(r, horizon)
    cover = occluder(r) if r.random() < 0.18 else []
    beside = [s for _, shapes in near for s in shapes]
    look = corner_camera(r) if set_name == "cctv" else lambda points: points
    seen = warped([*beside, *front], look) + cover
    image = LOOKS[set_name](warped(back, look), seen, size, r)
    joints = {n: pair(look(place.map(np.array([figure.joints[n]])))) for n in JOINTS}
    objects = {n: bounds(warped(place.shapes(s), look)) for n, s in figure.boxes.items()} | {
        n: bounds(warped(s, look)) for n, s in near
    }
    said = tuple(dict.fromkeys([*figure.said, *[f"{n} nearby" for n, _ in near]]))
    return Scene(image, label, Truth(said, joints, objects), source)


def pair(points: np.ndarray) -> Point:
    """The first of (n, 2) points as two floats."""
    return float(points[0, 0]), float(points[0, 1])


def warped(shapes: list[Shape], look: Callable[[np.ndarray], np.ndarray]) -> list[Shape]:
    """The shapes as a camera sees them."""
    return [Shape(look(s.points), s.colour, s.heat, s.width, s.outline) for s in shapes]


def check_key(set_name: str, split: str, index: int) -> None:
    """ValueError that lists the valid names, unless this is the key of a scene."""
    if set_name not in SETS:
        raise ValueError(f"unknown pocket set {set_name!r}; the sets are {', '.join(SETS)}")
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; the splits are {', '.join(SPLITS)}")
    if index < 0:
        raise ValueError(f"scene index {index} of {set_name}/{split}: must be 0 or more")


def scene_from_source(source: str, size: int = IMAGE_SIZE) -> Scene:
    """Draw the scene that a source key names. The last scenes are kept, since a study asks for the same test images
    again and again; the image is the caller's own.

    >>> scene_from_source("sketch/validation/000003").label
    'fishing'
    """
    scene = kept_scene(source, size)
    return replace(scene, image=scene.image.copy())


@lru_cache(maxsize=2048)  # 120 MB of images at most
def kept_scene(source: str, size: int) -> Scene:
    set_name, split, index = source.split("/")
    return draw_scene(set_name, split, int(index), size)


def is_pocket_source(source: str) -> bool:
    """True when ``source`` is a key of this world, so that its truth can be asked for."""
    parts = source.split("/")
    return len(parts) == 3 and parts[0] in SETS and parts[1] in SPLITS and parts[2].isdigit()
