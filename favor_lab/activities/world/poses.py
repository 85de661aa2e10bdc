"""How a body stands and where its hands go: a small skeleton, in body units (feet at y = 0, head top at y = 1)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random

Point = tuple[float, float]
Joints = dict[str, Point]

HIP, NECK, HEAD_RADIUS = 0.50, 0.81, 0.095
UPPER_ARM, FOREARM, THIGH, SHIN = 0.185, 0.185, 0.247, 0.247


def move(point: Point, dx: float, dy: float) -> Point:
    """The point moved by (dx, dy)."""
    return point[0] + dx, point[1] + dy


def mid(a: Point, b: Point, share: float = 0.5) -> Point:
    """The point that lies `share` of the way from a to b."""
    return a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share


@dataclass(frozen=True)
class Pose:
    """Where a body puts itself. `turn`: 0 faces the viewer, 1 is a side view; `lean`: radians, forward positive."""

    hip: Point
    feet: tuple[Point, Point]  # far, near
    lean: float
    turn: float
    nod: float = 0.0  # radians, looking down positive


def frame(pose: Pose) -> Joints:
    """Neck, head and shoulders of a pose, and the spots of the face that hands go to. Body units."""
    length, tilt = NECK - HIP, pose.lean * 0.6 + pose.nod
    neck = move(pose.hip, length * math.sin(pose.lean), length * math.cos(pose.lean))
    head = (neck[0] + 0.105 * math.sin(tilt) + 0.012 * pose.turn, neck[1] + 0.105 * math.cos(tilt))
    half = 0.10 * (1 - 0.62 * pose.turn)
    ahead = 0.55 * pose.turn
    face = HEAD_RADIUS * (0.25 + 0.75 * pose.turn)
    return {
        "neck": neck,
        "head": head,
        "shoulder_far": move(neck, -half, -0.025),
        "shoulder_near": move(neck, half * 0.9, -0.025),
        "hip_far": move(pose.hip, -half * 0.55, 0.0),
        "hip_near": move(pose.hip, half * 0.55, 0.0),
        "mouth": move(head, face * 0.9, -0.052),
        "eyes": move(head, face * 0.95, 0.012),
        "ear": move(head, HEAD_RADIUS * (1.02 - 1.1 * pose.turn), -0.012),
        "chest": (neck[0] + 0.03 + 0.30 * ahead, neck[1] - 0.135),
    }


def bend(root: Point, target: Point, upper: float, lower: float, way: float) -> tuple[Point, Point]:
    """Two-link reach: the middle joint and the end (pulled in when out of reach). `way` +1 or -1 picks the side."""
    dx, dy = target[0] - root[0], target[1] - root[1]
    reach = math.hypot(dx, dy)
    short = min(1.0, max(0.68, reach / (0.6 * (upper + lower))))  # a near target: the limb points at the viewer
    upper, lower = upper * short, lower * short
    far = min(max(reach, abs(upper - lower) + 1e-3, 0.06), (upper + lower) * 0.995)
    ux, uy = (dx / reach, dy / reach) if reach > 1e-6 else (0.0, -1.0)
    along = (upper**2 - lower**2 + far**2) / (2 * far)
    off = math.sqrt(max(upper**2 - along**2, 0.0)) * way
    middle = (root[0] + ux * along - uy * off, root[1] + uy * along + ux * off)
    return middle, (root[0] + ux * far, root[1] + uy * far)


def skeleton(pose: Pose, hands: tuple[Point, Point], elbows: tuple[float, float]) -> Joints:
    """Every joint of a pose whose hands reach for `hands` (far, near); `elbows` say which way each bends."""
    joints = frame(pose)
    for side, hand, foot, elbow in zip(("far", "near"), hands, pose.feet, elbows, strict=True):
        elbow_at, hand_at = bend(joints[f"shoulder_{side}"], hand, UPPER_ARM, FOREARM, elbow)
        knee = 1.0 if pose.turn > 0.35 or side == "near" else -1.0
        knee_at, foot_at = bend(joints[f"hip_{side}"], foot, THIGH, SHIN, knee)
        joints |= {f"elbow_{side}": elbow_at, f"hand_{side}": hand_at, f"knee_{side}": knee_at, f"foot_{side}": foot_at}
    return joints


def pose_of(legs: str, turn: float, nod: float, r: Random) -> Pose:
    """Hip, feet and lean of a way of standing."""
    wide, ahead = 0.045 + 0.03 * (1 - turn), 0.17 * turn
    lean = r.uniform(-0.04, 0.06) * turn
    u = r.uniform
    poses: dict[str, tuple[Point, Point, Point, float]] = {  # hip, far foot, near foot, lean
        "standing": ((0.0, 0.50), (-wide, 0.02), (wide, 0.02), lean),
        "walking": ((0.0, 0.49), (-u(0.13, 0.18), 0.035), (u(0.13, 0.19), 0.02), lean + 0.05),
        "running": ((0.0, 0.53), (-u(0.30, 0.36), u(0.22, 0.32)), (u(0.20, 0.27), u(0.06, 0.12)), 0.20 + lean),
        "jumping": ((0.0, 0.74), (-u(0.10, 0.2), u(0.30, 0.38)), (u(0.10, 0.2), u(0.30, 0.38)), lean),
        "sitting": ((0.0, 0.29), (0.05 + ahead - wide, 0.02), (0.09 + ahead + wide * (1 - turn), 0.02), lean),
        "cycling": ((-0.12, 0.52), (-0.04, 0.24), (0.05, 0.08), u(0.30, 0.5)),
        "climbing": ((0.0, 0.55), (0.17, 0.12), (0.19, 0.36), u(-0.02, 0.10)),
    }
    hip, far, near, lean = poses[legs]
    return Pose(hip, (far, near), lean, turn, nod)


def reach(spots: tuple[str, str], pose: Pose, r: Random) -> tuple[tuple[Point, Point], tuple[float, float]]:
    """Where the hands go (far, near), and which way each elbow bends."""
    f, t = frame(pose), pose.turn
    both, one = hand_places(f, t, r.uniform(-0.015, 0.015))
    hanging = f["neck"][1] - 0.37
    far, near = spots
    if far == near and far in both:
        hands = both[far]
    else:
        far_at = both["up"][0] if far == "up" else (f["shoulder_far"][0] - 0.03 + 0.02 * t, hanging)
        hands = (far_at, one.get(near, (f["shoulder_near"][0] + 0.03, hanging)))
    if t > 0.45:  # side view: elbows hang down and forward, but for the arm that draws a bow
        return hands, (-1.0, 1.0 if near == "bow" else -1.0)
    high, inward = ("up", "eyes", "ear", "mouth"), ("clap", "chest", "down")
    return hands, (1.0 if far in high else -1.0, 1.0 if near in inward else -1.0)


def hand_places(f: Joints, t: float, jitter: float) -> tuple[dict[str, tuple[Point, Point]], Joints]:
    """Places for both hands (far, near), and for the near hand alone, in the frame `f` of a pose turned by `t`."""
    neck, chest, eyes, mouth = f["neck"], f["chest"], f["eyes"], f["mouth"]
    gap, clap, middle, brow = 0.085 * (1 - 0.45 * t), chest[1] - 0.035 + jitter, chest[0] + 0.09 * t, eyes[0] + 0.05 * t
    far_up = (f["shoulder_far"][0] - 0.15 + 0.22 * t, neck[1] + 0.32)
    near_up = (f["shoulder_near"][0] + 0.15 + 3 * jitter, neck[1] + 0.32 + 2 * jitter)
    both = {
        "clap": ((chest[0] - 0.05 + 0.16 * t, clap), (chest[0] - 0.005 + 0.16 * t, clap)),
        "chest": ((middle - gap, chest[1] - 0.03), (middle + gap, chest[1] - 0.03)),
        "eyes": ((brow - 0.07, eyes[1] - 0.03), (brow + 0.07 * (1 - 0.5 * t), eyes[1] - 0.03)),
        "handle": ((neck[0] + 0.30, 0.57), (neck[0] + 0.31, 0.55)),
        "bars": ((0.24, 0.53), (0.27, 0.52)),
        "rod": (move(neck, 0.27, -0.13), move(neck, 0.15, -0.21)),
        "bow": ((neck[0] + 0.37, neck[1] - 0.01 + 2 * jitter), move(mouth, -0.015, -0.03)),
        "waist": (move(neck, 0.24 - 0.06 * t, -0.17 + jitter), move(neck, 0.02 + 0.05 * t, -0.29 + jitter)),
        "swing": (move(neck, 0.22, -0.11), move(neck, -0.09, -0.29)),
        "hold": ((neck[0] + 0.19, neck[1] + 0.29 + 3 * jitter), (neck[0] + 0.22, neck[1] + 0.03 + 3 * jitter)),
        "up": (far_up, near_up),
    }
    one = {
        "ear": move(f["ear"], 0.03 * (1 - t), -0.03),
        "mouth": move(mouth, 0.035, -0.012),
        "low": move(neck, 0.22, -0.28),
        "board": (neck[0] + 0.33, neck[1] + 0.05 + 4 * jitter),
        "shaft": (neck[0] + 0.12 + 0.05 * t, neck[1] - 0.12),
        "up": near_up,
    }
    return both, one
