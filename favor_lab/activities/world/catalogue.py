"""The activities of the drawn world, their names, what may be said about a scene, and the evidence that makes each
activity: how the person stands (legs), what the hands do, the thing in use, and things that lie nearby."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

SETS = ("cartoon", "sketch", "thermal", "cctv")
NEW_SETS = tuple(f"{name}-new" for name in SETS)  # the same looks with the labels `NEW_ACTIVITIES`
DRAWN_SETS = (*SETS, *NEW_SETS)
SPLITS = ("pretrain", "train", "validation", "test")
SMALL_THINGS = ("phone", "cup", "book", "camera", "umbrella")  # what the other hand may hold
PAIRED = ("shoulder", "elbow", "hand", "hip", "knee", "foot")
JOINTS = ("head", "neck", *[f"{joint}_{side}" for joint in PAIRED for side in ("far", "near")])

# what may be said: by legs, by hands, by the thing in use
LEGS = {
    "standing": "standing", "walking": "taking a step", "running": "long stride", "jumping": "feet off the ground",
    "sitting": "sitting", "cycling": "feet on pedals", "climbing": "feet on a wall",
}  # fmt: skip
HANDS = {
    "up": "one hand up", "ear": "hand at the ear", "mouth": "hand at the mouth", "eyes": "hands at the eyes",
    "clap": "hands together", "chest": "hands at the chest",
    "handle": "hands forward", "rod": "hands forward", "bars": "hands forward",
    "low": "one hand forward", "board": "one hand forward", "shaft": "one hand forward",
    "bow": "arms drawn apart", "swing": "arms swinging", "hold": "hands reaching up", "waist": "hands at the waist",
}  # fmt: skip
USES = {
    "phone": "phone at the ear", "cup": "cup at the mouth", "book": "open book in the hands",
    "camera": "camera at the eyes", "umbrella": "umbrella over the head", "bow": "bow in the hands",
    "fishing rod": "fishing rod in the hands", "cart": "cart at the hands", "dog": "dog on a leash",
    "bike": "bike under the person", "board": "board at the hand", "rock wall": "rock wall at the hands",
    "guitar": "guitar in the hands", "broom": "broom in the hands", "tablet": "tablet in the hands",
    "frisbee": "frisbee at the hand",
}  # fmt: skip
NEARBY = ("bike", "cart", "dog", "board", "rock wall", "tree", "bench", "lamp", "ball", "water", "second person")
THINGS = tuple(sorted({*USES, *SMALL_THINGS, *NEARBY}))
IN_A_HAND = {name: f"{name} in a hand" for name in SMALL_THINGS}
IS_NEARBY = {name: f"{name} nearby" for name in NEARBY}
HAND_POSITIONS = ("arms down", "both hands up", *HANDS.values())
NOBODY = "nobody there"  # of an image without a person
STATEMENTS = tuple(
    dict.fromkeys([NOBODY, *LEGS.values(), *HAND_POSITIONS, *USES.values(), *IN_A_HAND.values(), *IS_NEARBY.values()])
)


def hand_statements(hands: tuple[str, str]) -> list[str]:
    """The statements about two hands (far, near). A hanging hand beside a busy one is not mentioned.

    >>> hand_statements(("down", "ear")), hand_statements(("down", "down"))
    (['hand at the ear'], ['arms down'])
    """
    if hands == ("down", "down"):
        return ["arms down"]
    if hands == ("up", "up"):
        return ["both hands up"]
    return list(dict.fromkeys(HANDS[hand] for hand in reversed(hands) if hand != "down"))


@dataclass(frozen=True)
class Plan:
    """The evidence of an activity: possible legs, possible hands (far, near), the thing in use.

    `turn` is the range of the body's rotation (0 faces the viewer, 1 is a side view), `nod` the head's, in radians.
    """

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
# Four further activities: the pocket policy has seen their evidence and was never told a name for them.
NEW_PLANS = {
    "playing the guitar": Plan(("standing", "sitting"), (("waist", "waist"),), "guitar", (0.2, 0.9)),
    "sweeping the floor": Plan(("standing", "walking"), (("handle", "handle"),), "broom", (0.75, 1.0)),
    "throwing a frisbee": Plan(("standing", "walking"), (("down", "up"),), "frisbee", (0.0, 0.8)),
    "using a tablet": Plan(("standing", "sitting", "sitting"), (("chest", "chest"),), "tablet", (0.0, 0.9), 0.3),
}
NEW_ACTIVITIES = tuple(NEW_PLANS)
ALL_PLANS = PLANS | NEW_PLANS
NAMES = {  # label -> the names under which the pocket policy met it, the label first
    "applauding": ("applauding", "clapping", "giving applause"),
    "climbing": ("climbing", "rock climbing", "scaling a wall"),
    "drinking": ("drinking", "having a drink", "sipping from a cup"),
    "fishing": ("fishing", "angling", "catching fish"),
    "holding an umbrella": ("holding an umbrella", "carrying an umbrella", "under an umbrella"),
    "jumping": ("jumping", "leaping", "hopping"),
    "phoning": ("phoning", "making a call", "on the phone"),
    "pushing a cart": ("pushing a cart", "moving a trolley", "shopping"),
    "reading": ("reading", "looking into a book", "studying"),
    "riding a bike": ("riding a bike", "cycling", "on a bicycle"),
    "running": ("running", "jogging", "sprinting"),
    "shooting an arrow": ("shooting an arrow", "doing archery", "drawing a bow"),
    "taking photos": ("taking photos", "photographing", "using a camera"),
    "walking the dog": ("walking the dog", "leading a dog", "out with a dog"),
    "waving hands": ("waving hands", "greeting", "signalling"),
    "writing on a board": ("writing on a board", "teaching", "at the whiteboard"),
}
NOTHING = "nothing to see"  # the answer to an image that shows nobody
NONE_OF_THESE = "none of these"  # the answer where a list offers it and no other entry is right

# Hands (far, near) and the thing that fits them, for scenes that show no activity.
FREE_HANDS: tuple[tuple[tuple[str, str], str | None], ...] = (
    (("down", "down"), None), (("down", "up"), None), (("up", "up"), None), (("down", "ear"), "phone"),
    (("up", "ear"), "phone"), (("down", "mouth"), "cup"), (("up", "mouth"), "cup"), (("eyes", "eyes"), "camera"),
    (("clap", "clap"), None), (("chest", "chest"), "book"), (("handle", "handle"), "cart"), (("down", "low"), "dog"),
    (("up", "low"), "dog"), (("bow", "bow"), "bow"), (("rod", "rod"), "fishing rod"), (("down", "board"), "board"),
    (("down", "shaft"), "umbrella"), (("up", "shaft"), "umbrella"),
    (("swing", "swing"), None), (("hold", "hold"), None), (("waist", "waist"), "guitar"),
    (("handle", "handle"), "broom"), (("chest", "chest"), "tablet"), (("down", "up"), "frisbee"),
)  # fmt: skip


def plans_of(set_name: str) -> dict[str, Plan]:
    """The activities that a set shows, each with its evidence. Raises ValueError for an unknown set."""
    if set_name not in DRAWN_SETS:
        raise ValueError(f"unknown pocket set {set_name!r}; the sets are {', '.join(DRAWN_SETS)}")
    return NEW_PLANS if set_name in NEW_SETS else PLANS


def free_plan(r: Random) -> Plan:
    """Evidence without a named activity: any legs with any hands, the thing that would fit the hands often missing; one
    in five shows one of `NEW_ACTIVITIES`."""
    if r.random() < 0.2:
        return NEW_PLANS[r.choice(NEW_ACTIVITIES)]
    hands, use = r.choice(FREE_HANDS)
    legs = r.choice(tuple(LEGS))
    if r.random() < 0.4:
        use = None
    side = use in ("cart", "dog", "board", "fishing rod", "broom") or legs in ("cycling", "climbing", "running")
    return Plan((legs,), (hands,), use, (0.75, 1.0) if side else (0.0, 1.0), r.choice((0.0, 0.0, 0.3)))
