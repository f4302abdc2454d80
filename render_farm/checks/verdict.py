"""The judgement on one object's pictures, before they are kept::

    OrbitImages -> coverage, exposure -> depth, normals -> agreement of views -> Verdict
                   (every orbit)         (target orbits that have them)

What cannot be right is refused whatever the filters say: blank pictures, impossible depth or normals, views that
contradict each other. What is right but unwanted (cropped, over-exposed, tiny, untextured) is for the filters.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from engine.files import OrbitImages
from render_farm.checks.agreement import Agreement, measure_agreement
from render_farm.checks.gaps import view_angles_deg
from render_farm.checks.hashes import picture_hash
from render_farm.checks.pictures import EDGES, Coverage, Exposure, lost_views, measure_coverage, measure_exposure
from render_farm.checks.surfaces import DepthFacts, NormalFacts, measure_depth, measure_normals
from render_farm.records import Filters, Refusal

STAGE = "checking"
CONDITION = "condition"
"""Orbits of this name, or of this and a number, are lit at random: only their exposure is judged."""
OUTSIDE_SHARE = 0.005
"""Of depths. A hair may stand out; a part that was not measured is more."""
MISSING_SHARE = 0.02
"""Of solid pixels without depth or normal: stacks of almost transparent surfaces."""
SURPLUS_SHARE = 0.01
"""Of depths without any colour around: a first sample that hit a thread which all others missed."""
NOT_UNIT_SHARE = 0.001
"""Of normals: none at all is expected."""
AWAY_SHARE = 0.1
"""Of normals. Models with bad vertex normals have some; passes in the wrong space or sign have a third or more."""
MEDIAN_PX = 0.25
"""Of all points. Right orbits of 146 objects reach 0.08 px at 128 px (half of them 0.001), a field of view that is 3 %
wrong 0.04 to 0.6, mirrored pictures 2 and more."""
VIEW_PX = 0.25
"""Of the worst view: right ones reach 0.02 px; one whose camera is panned by 2 degrees 1 to 8, a swapped or mirrored one
1.4 and more, one of a wrong azimuth (2 degrees) 0.2 to 1.1."""


@dataclass(frozen=True)
class Verdict:
    """What the checks found."""

    quality: dict[str, Any]
    """Measures by orbit name, and `picture_hash`; JSON."""
    flags: tuple[str, ...]
    """Reasons that apply but do not refuse, in order, each once."""
    refusal: Refusal | None
    """The first reason that refuses."""


def examine(images: tuple[OrbitImages, ...], facts: Mapping[str, Any], filters: Filters) -> Verdict:
    """Judge all orbits of one object.

    Args:
        images: its orbits, targets first; not empty.
        facts: what Blender found; read: `textured` (image, vertex, colours or plain).
        filters: of the run.

    Raises:
        ValueError: no orbit.
    """
    if not images:
        raise ValueError("examine needs at least one orbit, got none")
    quality: dict[str, Any] = {}
    notes: list[_Note] = []
    for orbit_images in images:
        measured = _measure(orbit_images)
        quality[orbit_images.orbit.name] = measured.to_json()
        notes += _judge(orbit_images, measured, filters)
    quality["picture_hash"] = picture_hash(images[0])
    notes += _judge_texture(images[0].uid, facts, filters)
    refusals = [note for note in notes if note.refuses]
    flags = tuple(dict.fromkeys(note.reason for note in notes if not note.refuses))
    refusal = Refusal(refusals[0].reason, refusals[0].message, STAGE) if refusals else None
    return Verdict(quality, flags, refusal)


@dataclass(frozen=True)
class _Note:
    reason: str
    message: str
    refuses: bool


@dataclass(frozen=True)
class _Measures:
    coverage: Coverage
    exposure: Exposure
    depth: DepthFacts | None
    normals: NormalFacts | None
    agreement: Agreement | None

    def to_json(self) -> dict[str, Any]:
        """Return plain numbers; a group is None where its pictures are missing or are not judged."""
        coverage = {
            "mean": _number(self.coverage.shares.mean()), "min": _number(self.coverage.shares.min()),
            "max": _number(self.coverage.shares.max()), "blank_views": np.flatnonzero(self.coverage.blank).tolist(),
            "shares": [round(float(share), 4) for share in self.coverage.shares],
        }  # fmt: skip
        border: dict[str, Any] = {
            f"{edge}_views": int(self.coverage.touches[:, i].sum()) for i, edge in enumerate(EDGES)
        }
        border |= {"views": len(self.coverage.cropped_views), "share": _number(self.coverage.border_share)}
        border["touches"] = self.coverage.touches.any(1).tolist()
        return {
            "coverage": coverage, "border": border, "exposure": _numbers(self.exposure), "depth": _numbers(self.depth),
            "normals": _numbers(self.normals), "agreement": _numbers(self.agreement),
        }  # fmt: skip


def _number(value: float) -> float:
    return round(float(value), 6)


def _numbers(measures: object) -> dict[str, Any] | None:
    if measures is None:
        return None
    return {name: _number(value) if isinstance(value, float) else value for name, value in vars(measures).items()}


def is_condition(name: str) -> bool:
    """Whether an orbit of this name is lit at random to be conditioned on."""
    return name == CONDITION or name.startswith(f"{CONDITION}_")


def _measure(images: OrbitImages) -> _Measures:
    alpha = np.ascontiguousarray(images.rgba[..., 3])
    coverage, exposure = measure_coverage(alpha), measure_exposure(images.rgba)
    if is_condition(images.orbit.name):
        return _Measures(coverage, exposure, None, None, None)
    depth = None if images.depth_m is None else measure_depth(images.orbit, alpha, images.depth_m)
    normals = None if images.normal is None else measure_normals(images.orbit, alpha, images.normal)
    agreement = None
    if depth is not None and depth.finite and images.depth_m is not None:
        agreement = measure_agreement(images.orbit, images.depth_m)
    return _Measures(coverage, exposure, depth, normals, agreement)


def _judge(images: OrbitImages, measured: _Measures, filters: Filters) -> list[_Note]:
    """Everything that one orbit's measures say, the gravest first."""
    where = f"{images.uid}, orbit {images.orbit.name}"
    notes = _judge_blank(where, images, measured.coverage)
    if any(note.refuses for note in notes):
        return notes
    if not is_condition(images.orbit.name):
        if measured.depth is not None:
            notes += _judge_depth(where, measured.depth)
        if measured.normals is not None:
            notes += _judge_normals(where, measured.normals)
        if measured.agreement is not None:
            notes += _judge_agreement(where, measured.agreement)
        notes += _judge_framing(where, measured.coverage, filters)
    return notes + _judge_exposure(where, measured.exposure, filters)


def _judge_blank(where: str, images: OrbitImages, coverage: Coverage) -> list[_Note]:
    blank = np.flatnonzero(coverage.blank).tolist()
    if not blank:
        return []
    if len(blank) == len(coverage.blank):
        return [_Note("blank", f"{where}: all {len(blank)} pictures are empty: expected the object, found nothing "
                      "opaque; are its materials fully transparent?", True)]  # fmt: skip
    lost = lost_views(coverage, view_angles_deg(images.orbit))
    if lost and not is_condition(images.orbit.name):
        return [_Note("blank", f"{where}: {_views(lost)} empty: expected the object, which views beside show large, found "
                      "nothing; render it again, and see the child's log if they stay empty", True)]  # fmt: skip
    return [_Note("blank", f"{where}: {_views(blank)} empty, as of a flat object seen from its edge", False)]


def _views(indices: list[int]) -> str:
    shown = ", ".join(str(index) for index in indices[:6]) + (", ..." if len(indices) > 6 else "")
    return f"view {shown} is" if len(indices) == 1 else f"views {shown} are"


def _judge_depth(where: str, depth: DepthFacts) -> list[_Note]:
    fix = "render it again, and report it if that does not help"
    if not depth.finite:
        found = "expected finite depths from 0 up, found NaN, infinite or negative ones"
    elif depth.outside_share > OUTSIDE_SHARE:
        found = (f"expected depths within 0.88 m of each camera's distance, found {depth.nearest_m:.3f} to "
                 f"{depth.farthest_m:.3f} m, {depth.outside_share:.1%} of them outside")  # fmt: skip
        fix = "more shows than was measured: hair, displacement, or nodes that differ in the viewport; apply them"
    elif depth.missing_share > MISSING_SHARE:
        found = f"expected depth where the object is solid, found none on {depth.missing_share:.1%} of those pixels"
    elif depth.surplus_share > SURPLUS_SHARE:
        found = f"expected no depth where nothing is, found {depth.surplus_share:.1%} of all depths there"
    else:
        return []
    return [_Note("bad-depth", f"{where}: {found}; {fix}", True)]


def _judge_normals(where: str, normals: NormalFacts) -> list[_Note]:
    fix = "render it again, and report it if that does not help"
    if not normals.finite:
        found = "expected finite normals, found NaN or infinite ones"
    elif normals.not_unit_share > NOT_UNIT_SHARE:
        found = f"expected normals of length 1, found {normals.not_unit_share:.1%} of other lengths"
    elif normals.missing_share > MISSING_SHARE:
        found = f"expected normals where the object is solid, found none on {normals.missing_share:.1%} of those pixels"
    elif normals.away_share > AWAY_SHARE:
        found = f"expected normals that face their camera, found {normals.away_share:.1%} facing away"
        fix = "its faces or its vertex normals are inside out: recalculate them"
    else:
        return []
    return [_Note("bad-normals", f"{where}: {found}; {fix}", True)]


def _judge_agreement(where: str, agreement: Agreement) -> list[_Note]:
    fix = "pictures and cameras do not belong together: render it again"
    if agreement.median_px is not None and agreement.median_px >= MEDIAN_PX:
        return [_Note("inconsistent", f"{where}: expected surfaces of two views within {MEDIAN_PX:g} px of each other, "
                      f"found {agreement.median_px:.2f} px in the median; {fix}", True)]  # fmt: skip
    if agreement.worst_view_px is not None and agreement.worst_view_px >= VIEW_PX:
        return [_Note("inconsistent", f"{where}: expected every view within {VIEW_PX:g} px of the others, found three "
                      f"quarters of view {agreement.worst_view} more than {agreement.worst_view_px:.2f} px off; {fix}", True)]  # fmt: skip
    return []


def _judge_framing(where: str, coverage: Coverage, filters: Filters) -> list[_Note]:
    notes = []
    mean = float(coverage.shares.mean())
    if mean < filters.tiny_coverage:
        notes.append(_Note("tiny", f"{where}: expected the object to cover at least {filters.tiny_coverage:.2%} of its "
                           f"average picture, found {mean:.2%}; lower tiny_coverage to keep it", True))  # fmt: skip
    cropped = coverage.cropped_views
    if cropped:
        notes += _filtered("cropped", filters.cropped, f"{where}: expected the object inside its pictures, found it at "
                           f"the border of {len(cropped)} of {len(coverage.blank)} (first: view {cropped[0]}); use fit "
                           "sphere, or let cropped be flagged")  # fmt: skip
    return notes


def _judge_exposure(where: str, exposure: Exposure, filters: Filters) -> list[_Note]:
    if exposure.white_share <= filters.white_share:
        return []
    return _filtered("over-exposed", filters.over_exposed, f"{where}: expected at most {filters.white_share:.0%} of the "
                     f"object clipped to white, found {exposure.white_share:.0%}; lower the light's strength, or let "
                     "over_exposed be flagged")  # fmt: skip


def _judge_texture(uid: str, facts: Mapping[str, Any], filters: Filters) -> list[_Note]:
    textured = facts.get("textured")
    refused = {"keep": (), "plain": ("plain",), "refuse": ("plain", "colours")}[filters.untextured]
    if textured not in refused:
        return []
    found = "one plain colour" if textured == "plain" else "plain colours without an image or vertex colours"
    return [_Note("untextured", f"{uid}: expected a textured object, found {found}; set untextured to keep to have it "
                  "all the same", True)]  # fmt: skip


def _filtered(reason: str, choice: Literal["keep", "flag", "refuse"], message: str) -> list[_Note]:
    return [] if choice == "keep" else [_Note(reason, message, choice == "refuse")]
