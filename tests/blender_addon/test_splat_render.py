"""What Cycles and EEVEE make of the splats, against a plain numpy compositor that shoots the same rays."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blender_addon.splat_frames import multiply, sh_basis, sh_rotation
from engine.geometry import Camera, look_at, rays_world

pytestmark = pytest.mark.blender
SH_DC = 0.28209479177387814
SIZE = 96
FOCAL = 1.4  # picture heights
EYE = np.array([0.7, -1.8, 0.6])

RENDER = """
from blender_addon.ply import Splats
from blender_addon.splats import add_splats, allow_transparency
from mathutils import Matrix
data = np.load(sys.argv[3])
scene, notes = bpy.context.scene, []
splats = Splats(*(data[k].astype(np.float32) for k in ("means", "scales", "quaternions", "opacities", "sh")), True)
target = add_splats(splats, "test", scene.collection, notes)
target.matrix_world = Matrix(data["object"].tolist())
allow_transparency(scene, notes)
camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
scene.collection.objects.link(camera)
scene.camera = camera
camera.matrix_world = Matrix(data["camera"].tolist())
camera.data.sensor_fit, camera.data.sensor_height, camera.data.lens = "VERTICAL", 24, 24 * float(data["focal"])
render = scene.render
render.engine = sys.argv[4]
size = int(data["size"])
render.resolution_x = render.resolution_y = size
render.resolution_percentage, render.film_transparent = 100, True
render.threads_mode, render.threads = "FIXED", 2
if render.engine == "CYCLES":
    scene.cycles.device, scene.cycles.samples, scene.cycles.use_denoising = "CPU", 36, False
    scene.cycles.use_adaptive_sampling, scene.cycles.pixel_filter_type = False, "BOX"
    scene.cycles.filter_width = 1.0
else:
    scene.eevee.taa_render_samples = 16
scene.view_settings.view_transform = sys.argv[5]
exact = sys.argv[5] == "Raw"
render.image_settings.file_format = "OPEN_EXR" if exact else "PNG"
render.image_settings.color_mode = "RGBA"
render.image_settings.color_depth = "32" if exact else "8"
render.filepath = sys.argv[1] + (".exr" if exact else ".png")
bpy.ops.render.render(write_still=True)
image = bpy.data.images.load(render.filepath)
image.alpha_mode = "CHANNEL_PACKED"
pixels = np.array(image.pixels[:], np.float32).reshape(size, size, 4)[::-1]
np.save(sys.argv[6], pixels)
answer(notes)
"""


@pytest.fixture
def rendered(blender: Callable[..., Any], tmp_path: Path) -> Callable[..., np.ndarray]:
    """Render splats: [SIZE, SIZE, 4], first row at the top; linear premultiplied, or sRGB straight with `standard`."""

    def render(
        splats: dict[str, np.ndarray], *, engine: str = "CYCLES", standard: bool = False, size: int = SIZE,
        placed: np.ndarray | None = None,
    ) -> np.ndarray:  # fmt: skip
        pose = look_at(EYE, np.zeros(3)) @ np.diag([1.0, -1, -1, 1])
        np.savez(
            tmp_path / "splats.npz", **splats, camera=pose, focal=FOCAL, size=size,
            object=np.eye(4) if placed is None else placed,
        )  # fmt: skip
        view = "Standard" if standard else "Raw"
        blender(RENDER, tmp_path / "splats.npz", engine, view, tmp_path / "pixels.npy", timeout_s=600)
        return np.load(tmp_path / "pixels.npy")

    return render


def rotation(quaternions: np.ndarray) -> np.ndarray:
    """Rotation matrices by the textbook sandwich product, unlike the add-on's closed form."""
    w, v = quaternions[:, :1, None], quaternions[:, 1:]
    cross = np.stack([np.cross(v, axis) for axis in np.eye(3)], -1)  # [n, 3, 3]: v x e_k as columns
    outer = v[:, :, None] * v[:, None, :]
    return (w**2 - (v**2).sum(1)[:, None, None]) * np.eye(3) + 2 * outer + 2 * w * cross


def linear(srgb: np.ndarray) -> np.ndarray:
    """IEC 61966-2-1."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((np.maximum(srgb, 0) + 0.055) / 1.055) ** 2.4)


def weights(splats: dict[str, np.ndarray], samples: int = 3) -> np.ndarray:
    """Return each splat's share of each pixel [n, SIZE, SIZE]: front to back by the depth of the centres.

    The density along a ray peaks where (x - m)^T P (x - m) is least: minus b^2 / a of a quadratic in the ray's length.
    """
    size = SIZE * samples
    camera = Camera(look_at(EYE, np.zeros(3)), size, size, FOCAL * size, (size / 2, size / 2))
    eye, rays = rays_world(camera)
    turns = rotation(splats["quaternions"])
    shares, passed = np.zeros((len(turns), SIZE, SIZE)), np.ones((size, size))
    depth = (splats["means"] - eye) @ camera.T_world_camera[:3, 2]
    for i in np.argsort(depth):
        precision = turns[i] @ np.diag(splats["scales"][i] ** -2.0) @ turns[i].T
        offset = eye - splats["means"][i]
        a = np.einsum("hwi,ij,hwj->hw", rays, precision, rays)
        b = rays @ (precision @ offset)
        alpha = splats["opacities"][i] * np.exp(-0.5 * (offset @ precision @ offset - b * b / a))
        shares[i] = (passed * alpha).reshape(SIZE, samples, SIZE, samples).mean((1, 3))
        passed = passed * (1 - alpha)
    return shares


def seen_colours(splats: dict[str, np.ndarray], sh: np.ndarray) -> np.ndarray:
    """Linear colours [n, 3] along the line from the camera to each centre; `sh` may be another than the splats' own."""
    away = splats["means"] - EYE
    basis = sh_basis(away / np.linalg.norm(away, axis=1, keepdims=True), int(np.sqrt(sh.shape[1])) - 1)
    return linear(np.maximum(0.5 + np.einsum("nk,nkc->nc", basis, sh), 0))


def composite(
    splats: dict[str, np.ndarray], shares: np.ndarray | None = None, sh: np.ndarray | None = None
) -> np.ndarray:
    """Return [SIZE, SIZE, 4] linear, premultiplied."""
    shares = weights(splats) if shares is None else shares
    colours = seen_colours(splats, splats["sh"] if sh is None else sh)
    return np.einsum("nhw,nc->hwc", shares, np.concatenate([colours, np.ones((len(colours), 1))], 1))


def psnr_db(a: np.ndarray, b: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((a - b) ** 2)))


def random_splats(count: int, seed: int, spread: float, degree: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    quaternions = rng.normal(size=(count, 4))
    sh = rng.normal(size=(count, (degree + 1) ** 2, 3)) * 0.4
    sh[:, 0] = (rng.uniform(0.25, 0.9, (count, 3)) - 0.5) / SH_DC
    return {
        "means": rng.uniform(-spread, spread, (count, 3)),
        "scales": np.exp(rng.uniform(np.log(0.012), np.log(0.05), (count, 3))),
        "quaternions": quaternions / np.linalg.norm(quaternions, axis=1, keepdims=True),
        "opacities": rng.uniform(0.3, 0.98, count),
        "sh": sh,
    }


def one(**changes: np.ndarray) -> dict[str, np.ndarray]:
    """A long, flat, tilted splat in the middle."""
    splat = {
        "means": np.zeros((1, 3)), "scales": np.array([[0.16, 0.07, 0.02]]),
        "quaternions": np.array([[0.8, 0.1, -0.5, 0.3]]) / np.sqrt(0.99), "opacities": np.array([0.9]),
        "sh": (np.array([[[0.9, 0.5, 0.2]]]) - 0.5) / SH_DC,
    }  # fmt: skip
    return splat | changes


def test_one_splat_is_its_gaussian(rendered: Callable[..., np.ndarray]) -> None:
    splats = one()
    found, expected = rendered(splats), composite(splats)
    # 66 dB seen: what the cut at 3 sigma leaves (1 % of the opacity) and float32
    assert psnr_db(found, expected) > 58
    assert np.abs(found - expected).max() < 0.03


def test_many_splats_are_composited(rendered: Callable[..., np.ndarray]) -> None:
    splats = random_splats(60, 4, 0.4)
    # Cycles meets ellipsoids in the order of their surfaces, the reference sorts centres: pairs that interpenetrate may
    # swap, which is all of the 41.7 dB seen
    assert psnr_db(rendered(splats), composite(splats)) > 38


def apart(degree: int) -> dict[str, np.ndarray]:
    """Twelve splats that do not overlap in the picture, so that nothing but their colours can be wrong."""
    splats = random_splats(12, 8, 0.35, degree)
    columns, rows = np.meshgrid((-0.54, -0.18, 0.18, 0.54), (-0.36, 0.0, 0.36))
    splats["means"] = np.stack([columns.ravel(), rows.ravel(), np.zeros(12)], -1) @ look_at(EYE, np.zeros(3))[:3, :3].T
    splats["sh"][0, 0, 2] = -1.5 / SH_DC  # its blue stays below 0 whatever the other bands add: clamping is part of it
    return splats


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_every_harmonic_is_seen_with_its_sign(rendered: Callable[..., np.ndarray], degree: int) -> None:
    splats = apart(degree)
    found, shares = rendered(splats), weights(splats)
    assert psnr_db(found, composite(splats, shares)) > 57  # 62 dB and more seen: the cut at 3 sigma, see above
    for index in range(1, (degree + 1) ** 2):
        for factor in (0.0, -1.0):
            wrong = splats["sh"].copy()
            wrong[:, index] *= factor
            # 48.0 seen at most, for one that is faint from this side: dropped or flipped, none would pass
            assert psnr_db(found, composite(splats, shares, wrong)) < 52, f"sh_{index} times {factor}"


@pytest.mark.parametrize("degree", [1, 3])
def test_colours_ride_along_when_the_object_is_moved(rendered: Callable[..., np.ndarray], degree: int) -> None:
    splats = random_splats(12, 8, 0.35, degree)
    quaternion = np.array([0.9, 0.2, -0.3, 0.24]) / np.linalg.norm([0.9, 0.2, -0.3, 0.24])
    turn = rotation(quaternion[None])[0]
    size, shift = 1.3, np.array([0.05, -0.1, 0.02])
    placed = np.eye(4)
    placed[:3, :3], placed[:3, 3] = size * turn, shift
    found = rendered(splats, placed=placed)
    moved = splats | {
        "means": size * splats["means"] @ turn.T + shift, "scales": size * splats["scales"],
        "quaternions": multiply(quaternion, splats["quaternions"]),
        "sh": np.einsum("jk,nkc->njc", sh_rotation(turn, degree), splats["sh"]),
    }  # fmt: skip
    shares = weights(moved)
    assert psnr_db(found, composite(moved, shares)) > 48  # 52.8 seen: these overlap, and pairs may swap
    assert psnr_db(found, composite(moved, shares, splats["sh"])) < 42  # 37.8 seen: colours that stay behind


@pytest.mark.parametrize("rgb", [(0.8, 0.4, 0.1), (0.02, 0.5, 1.0)])
def test_an_opaque_splat_has_its_colour(rendered: Callable[..., np.ndarray], rgb: tuple[float, ...]) -> None:
    splats = one(scales=np.full((1, 3), 0.2), opacities=np.array([1.0]), sh=((np.array([[rgb]]) - 0.5) / SH_DC))
    found = rendered(splats, standard=True)
    middle = found[SIZE // 2 - 3 : SIZE // 2 + 3, SIZE // 2 - 3 : SIZE // 2 + 3].reshape(-1, 4)
    assert np.abs(middle[:, :3] - rgb).max() * 255 <= 2  # straight alpha: also where the Gaussian has begun to fall
    assert middle[:, 3].min() > 0.95  # exp(-d^2 / 2) at the corner, d = 0.26


@pytest.mark.slow
def test_eevee_draws_them_too(rendered: Callable[..., np.ndarray]) -> None:
    splats = one(scales=np.full((1, 3), 0.2), opacities=np.array([0.9]))
    found = rendered(splats, engine="BLENDER_EEVEE_NEXT", standard=True, size=32)
    middle = found[14:18, 14:18].reshape(-1, 4).mean(0)
    np.testing.assert_allclose(middle[:3], (0.9, 0.5, 0.2), atol=0.02)  # sRGB, dithered alpha, 16 samples
    assert middle[3] == pytest.approx(0.88, abs=0.08)
    assert found[:2, :, 3].max() < 0.05  # nothing at the frame's top: it is round, not a quad


@pytest.mark.slow
@pytest.mark.parametrize("degree", [1, 2, 3])
def test_eevee_draws_harmonics_up_to_degree_2(rendered: Callable[..., np.ndarray], degree: int) -> None:
    rng = np.random.default_rng(6)
    sh = np.concatenate([one()["sh"], rng.uniform(-0.3, 0.3, (1, (degree + 1) ** 2 - 1, 3))], 1)
    splats = one(scales=np.full((1, 3), 0.2), sh=sh)
    found = rendered(splats, engine="BLENDER_EEVEE_NEXT", standard=True, size=32)[14:18, 14:18].reshape(-1, 4).mean(0)
    basis = sh_basis(-EYE / np.linalg.norm(EYE), degree)
    drawn = (min(degree, 2) + 1) ** 2
    np.testing.assert_allclose(found[:3], 0.5 + basis[:drawn] @ sh[0, :drawn], atol=0.02)  # as above
    if degree == 3:  # there is something to be missed, and none of it arrives in part
        assert np.abs(basis[drawn:] @ sh[0, drawn:]).max() > 0.1


DEGREES = """
from blender_addon.ply import Splats
from blender_addon.splats import add_splats
ones, found = np.ones((2, 4), np.float32), []
for degree in range(4):
    notes = []
    sh = np.ones((2, (degree + 1) ** 2, 3), np.float32)
    splats = Splats(ones[:, :3], ones[:, :3], ones / 2, ones[:, 0], sh, True)
    target = add_splats(splats, "test", bpy.context.scene.collection, notes)
    names = [name for name in target.data.attributes.keys() if name.startswith("splat_sh_")]
    found.append([target["turntable_sh_degree"], len(names), notes])
answer(found)
"""


def test_the_degree_is_kept_and_said(blender: Callable[..., Any]) -> None:
    note = "Splats: Cycles draws their harmonics of degree 3, EEVEE up to degree 2 (it reads 8 attributes per splat)."
    assert blender(DEGREES) == [[0, 0, []], [1, 3, []], [2, 6, []], [3, 12, [note]]]  # an attribute holds four, no more


NATIVE = """
import blender_addon.native_splats as native
from blender_addon.ply import Splats
from blender_addon.splats import add_splats
data = np.load(sys.argv[3])
splats = Splats(*(data[k].astype(np.float32) for k in ("means", "scales", "quaternions", "opacities", "sh")), True)
scene, notes = bpy.context.scene, []
offered, version = native.identifier(), list(bpy.app.version)
native.identifier = lambda: "GAUSSIAN_SPLAT"  # a Blender whose interface is not what was expected
target = add_splats(splats, "test", scene.collection, notes)
columns = {name: [kind, values.tolist()] for name, (kind, values) in native.columns(splats).items()}
answer([offered, version, target.type, len(bpy.data.pointclouds), notes, columns])
"""


def test_native_splats_are_tried_only_where_blender_has_them(blender: Callable[..., Any], tmp_path: Path) -> None:
    splats = random_splats(5, 1, 0.3, degree=1)
    np.savez(tmp_path / "splats.npz", **splats)
    offered, version, kind, clouds, notes, columns = blender(NATIVE, tmp_path / "splats.npz")
    assert (offered is None) == (version < [5, 3, 0])
    if offered is not None:
        pytest.skip("this Blender draws splats itself; what follows is about those that do not")
    assert (kind, clouds) == ("MESH", 0)  # fell back to ellipsoids, no half-made cloud
    assert len(notes) == 1
    assert notes[0].startswith("Blender's own splats refused these (")
    # what Blender's importer would write: linear scale, raw degree 0 with the activated opacity, rgb per coefficient
    assert columns["scale"] == ["FLOAT_VECTOR", splats["scales"].astype(np.float32).tolist()]
    assert [row[3] for row in columns["radiance:base"][1]] == splats["opacities"].astype(np.float32).tolist()
    assert [row[:3] for row in columns["radiance:base"][1]] == splats["sh"][:, 0].astype(np.float32).tolist()
    assert columns["radiance:sh_2"][1] == splats["sh"][:, 3].astype(np.float32).tolist()
    assert "radiance:sh_3" not in columns
