"""Only the object's rectangle is rendered: nothing of the object is missing for it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.blender


@pytest.fixture(scope="module")
def blade(tmp_path_factory: pytest.TempPathFactory, make_glb: Any, make_part: Any) -> tuple[Path, Any]:
    """A thin, skew double pyramid in the unit box: its pictures leave most of the frame empty."""
    points = np.array(
        [
            [-0.5, -0.1, -0.4],
            [0.5, 0.1, 0.4],
            [0.06, 0.1, 0.0],
            [-0.06, -0.1, 0.0],
            [0.0, 0.1, -0.06],
            [0.0, -0.1, 0.06],
        ]
    )
    faces = [[a, b, c] for a in (0, 1) for b, c in ((2, 4), (4, 3), (3, 5), (5, 2))]
    part = make_part(points, np.array(faces + [face[::-1] for face in faces]), {"doubleSided": True})
    path: Path = make_glb(tmp_path_factory.mktemp("blade") / "blade.glb", part)
    return path, points


@pytest.mark.parametrize("distance", [2.1, 2.6])
def test_what_shows_reaches_as_far_as_the_projected_points(
    worker: Any, make_cameras: Any, blade: tuple[Path, Any], distance: float
) -> None:
    path, points = blade
    orbit = make_cameras((0.0, 40.0, 130.0, 250.0), 25.0, distance)
    outcome = worker.run(path, orbit, samples=64)
    for index, channels in enumerate(outcome.channels()):
        alpha = channels["Combined.A"]
        v, u = np.nonzero(alpha > 1e-3)
        T = np.linalg.inv(orbit.T_world_camera[index])
        seen = points @ T[:3, :3].T + T[:3, 3]
        x = orbit.focal_px * seen[:, 0] / seen[:, 2] + orbit.principal_px[0]
        y = orbit.focal_px * seen[:, 1] / seen[:, 2] + orbit.principal_px[1]
        expected = np.clip([x.min(), x.max(), y.min(), y.max()], 0, alpha.shape[0])
        found = [u.min(), u.max() + 1, v.min(), v.max() + 1]
        # a needle's last two pixels may be too thin for 64 samples; a rectangle too small by its margin loses more
        assert np.abs(expected - found).max() < 2.5, (index, expected, found)


def test_the_empty_part_is_nothing(worker: Any, make_cameras: Any, blade: tuple[Path, Any]) -> None:
    (channels,) = worker.run(blade[0], make_cameras((40.0,), 25.0)).channels()
    assert channels["Combined.A"].shape == (48, 48)
    assert (channels["Combined.A"][:, :2] == 0).all()
    assert (channels["Combined.R"][channels["Combined.A"] == 0] == 0).all()
