"""Animated and skinned objects: which frame is shown, or the rest pose. Afterwards nothing depends on what came before.

first   the first frame of whatever moves the object: actions, NLA strips, caches
number  that frame, whether anything moves there or not
rest    armatures in their rest pose, shape keys and transforms as stored, no animation at all
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import bpy
import numpy as np

from render_farm.worker.events import WorkerError
from render_farm.worker.stored import Restore

MOST_FRAMES = 64
"""Bounds over all frames look at this many, evenly spread, with the first and the last."""
STILL = 1e-6
"""Curves that change by less, relative to their values, do not move anything."""


@dataclass(frozen=True)
class Pose:
    """What the session was set to."""

    facts: dict[str, Any]
    """animated, skinned, frame, frames [start, end], pose (frame or rest)."""
    frame: float
    """That is shown."""
    sampled: tuple[float, ...]
    """Frames over which bounds are taken: the one that is shown, or all."""
    warnings: tuple[str, ...]
    """What the caller should know."""


def pose(scene: bpy.types.Scene, policy: Mapping[str, Any], restore: list[Restore]) -> Pose:
    """Bring the session to the frame or pose that the policy asks for.

    Args:
        scene: that the importer filled.
        policy: the fields of AssetPolicy.
        restore: put back what the importer animated; see stored.py.

    Raises:
        WorkerError: the object is animated, and the policy refuses that.
    """
    frames = _frames(scene)
    animated = frames is not None
    if frames is not None and policy["animated"] == "refuse":
        raise WorkerError("animated", f"it is animated (frames {frames[0]:g} to {frames[1]:g}): allow it with the "
                          "policy render")  # fmt: skip
    wanted, warnings = policy["frame"], []
    start, end = frames or (float(scene.frame_current), float(scene.frame_current))
    if wanted == "rest":
        warnings += _rest(restore, cached=_has_cache())
    frame = float(wanted) if isinstance(wanted, int | float) and animated else start
    if animated and not start <= frame <= end:
        warnings.append(f"frame {frame:g} lies outside its animation ({start:g} to {end:g})")
    sampled: tuple[float, ...] = (frame,)
    if animated and policy["bounds"] == "all-frames" and wanted != "rest":
        count = min(MOST_FRAMES, int(end - start) + 1)
        if count < int(end - start) + 1:
            warnings.append(f"its box was taken over {count} of its {int(end - start) + 1} frames")
        sampled = tuple(np.linspace(start, end, max(2, count)).tolist())
    go_to(scene, frame)
    facts = {
        "animated": animated, "skinned": _is_skinned(), "frame": _number(frame),
        "frames": [_number(start), _number(end)],
        "pose": "rest" if wanted == "rest" else "frame",
    }  # fmt: skip
    return Pose(facts, frame, sampled, tuple(warnings))


def go_to(scene: bpy.types.Scene, frame: float) -> None:
    """Evaluate a scene at a frame, which need not be whole."""
    whole = int(np.floor(frame))
    scene.frame_set(whole, subframe=frame - whole)


def _number(frame: float) -> float:
    return int(frame) if frame == int(frame) else frame


def _is_skinned() -> bool:
    return any(
        item.parent_type == "ARMATURE"
        or any(modifier.type == "ARMATURE" and modifier.object for modifier in item.modifiers)
        for item in bpy.data.objects
        if item.type == "MESH"
    )


# ------------------------------------------------------------------------------------------------ what moves
def _frames(scene: bpy.types.Scene) -> tuple[float, float] | None:
    """First and last frame of everything that moves; None where nothing does."""
    spans = [span for owner in _owners() for span in _spans(owner.animation_data)]
    if _has_cache():
        spans.append((float(scene.frame_start), float(scene.frame_end)))
    if not spans:
        return None
    return min(start for start, _ in spans), max(end for _, end in spans)


def _owners() -> Iterator[Any]:
    """Everything that can be animated and that shows; not lights and cameras."""
    data = bpy.data
    objects = (item for item in data.objects if item.type not in {"LIGHT", "CAMERA", "SPEAKER"})
    trees = (material.node_tree for material in data.materials if material.node_tree is not None)
    everything = chain(objects, data.meshes, data.curves, data.armatures, data.shape_keys, data.materials, trees,
                       data.node_groups, data.lattices, data.metaballs)  # fmt: skip
    return (owner for owner in everything if owner.animation_data is not None)


def _spans(animation: Any) -> Iterator[tuple[float, float]]:
    slot = getattr(animation, "action_slot", None)
    if animation.action is not None and _moves(animation.action, slot):
        yield tuple(animation.action.frame_range)
    tracks = [track for track in animation.nla_tracks if not track.mute] if animation.use_nla else []
    for strip in (strip for track in tracks for strip in track.strips if not strip.mute):
        if strip.action is not None and _moves(strip.action, getattr(strip, "action_slot", None)):
            yield strip.frame_start, strip.frame_end


def _moves(action: Any, slot: Any) -> bool:
    return any(_changes(curve) for curve in _curves(action, slot))


def _curves(action: Any, slot: Any) -> Iterator[Any]:
    if slot is not None and hasattr(action, "layers"):  # Blender 4.4
        for strip in (strip for layer in action.layers for strip in layer.strips):
            bag = strip.channelbag(slot)
            yield from (() if bag is None else bag.fcurves)
    elif hasattr(action, "fcurves"):
        yield from action.fcurves


def _changes(curve: Any) -> bool:
    if curve.mute:
        return False
    if len(curve.modifiers):
        return True
    points = curve.keyframe_points if len(curve.keyframe_points) else curve.sampled_points
    if len(points) < 2:
        return False
    values = np.empty(2 * len(points), np.float32)
    points.foreach_get("co", values)
    heights = values[1::2]
    return bool(np.ptp(heights) > STILL * max(1.0, float(np.abs(heights).max())))


def _has_cache() -> bool:
    return any(
        any(modifier.type in {"MESH_SEQUENCE_CACHE", "MESH_CACHE"} for modifier in item.modifiers)
        or any(constraint.type == "TRANSFORM_CACHE" for constraint in item.constraints)
        for item in bpy.data.objects
    )


# ------------------------------------------------------------------------------------------------ rest pose
def _rest(restore: list[Restore], *, cached: bool) -> list[str]:
    """Stop all animation and put armatures into their rest pose."""
    for owner in list(_owners()):
        animation = owner.animation_data
        animation.action = None
        animation.use_nla = False
    for put_back in restore:
        put_back()
    for armature in bpy.data.armatures:
        armature.pose_position = "REST"
    return ["it is moved by a cache, which has no rest pose: its first frame is shown"] if cached else []
