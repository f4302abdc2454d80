"""Blender's channels to ours: colour, alpha, depth, normals, base colour."""

from pathlib import Path

import numpy as np
import OpenEXR
import pytest

from engine.geometry import RING24
from render_farm.convert import Channels, convert_view, read_channels, srgb_from_linear
from render_farm.errors import FarmError

ALL = ("depth", "normal", "albedo")


def channels(**given: float) -> Channels:
    """One pixel; what is not given is 0. Keyword arguments write '.' as '_'."""
    names = [f"Combined.{c}" for c in "RGBA"] + ["Depth.Z"] + [f"Normal.{c}" for c in "XYZ"]
    names += [f"{layer}.{c}" for layer in ("BaseColour", "DiffCol", "GlossCol") for c in "RGB"] + ["BaseWeight.X"]
    names += ["Roughness.V", "Metallic.V"]
    values = {name: given.get(name.replace(".", "_"), 0.0) for name in names}
    return {name: np.full((1, 1), value, np.float32) for name, value in values.items()}


def test_srgb_at_known_values() -> None:
    # IEC 61966-2-1: the knee, middle grey (0.2140 is 0.5), and the ends; out of range is clipped
    linear = np.array([-1.0, 0.0, 0.0031308, 0.21404114, 1.0, 7.0])
    np.testing.assert_allclose(srgb_from_linear(linear), [0, 0, 0.04045, 0.5, 1, 1], atol=1e-5)  # the standard's digits


def test_alpha_is_straightened_in_linear_light() -> None:
    view = convert_view(channels(Combined_R=0.25 * 0.21404114, Combined_A=0.25), ())
    assert view.rgba[0, 0].tolist() == [128, 0, 0, 64]
    assert view.depth_m is None
    assert view.normal is None
    assert view.albedo is None


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9])
def test_a_cut_exr_is_said_to_be_cut(tmp_path: Path, kept: float) -> None:
    """OpenEXR drops the pixels of such a file and raises nothing."""
    path = tmp_path / "v.000.exr"
    planes = {f"V.{name}": np.random.default_rng(0).random((32, 32), np.float32) for name in ("Depth.Z", "Combined.A")}
    OpenEXR.File({"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}, planes).write(str(path))
    assert set(read_channels(path)) == {"Depth.Z", "Combined.A"}
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data))])
    with pytest.raises(FarmError) as caught:
        read_channels(path)
    assert str(caught.value).startswith("v.000.exr: Blender's EXR cannot be read (")
    assert str(caught.value).endswith("); is the disk full? [bad-output]")


def test_invisible_pixels_hold_nothing() -> None:
    # alpha below half a step of 8 bits is 0, and then nothing else may be there
    view = convert_view(channels(Combined_R=0.001, Combined_A=0.001, Depth_Z=2.0, Normal_Z=1.0, BaseColour_R=1.0), ALL)
    assert view.rgba[0, 0].tolist() == [0, 0, 0, 0]
    assert view.depth_m is not None
    assert view.normal is not None
    assert view.albedo is not None
    assert (view.depth_m[0, 0], view.normal[0, 0].tolist(), view.albedo[0, 0].tolist()) == (0, [0, 0, 0], [0, 0, 0])


@pytest.mark.parametrize(("cycles", "ours"), [(1.5, 1.5), (1e10, 0.0), (np.inf, 0.0), (np.nan, 0.0), (-1.0, 0.0)])
def test_depth(cycles: float, ours: float) -> None:
    view = convert_view(channels(Combined_A=1.0, Depth_Z=cycles), ("depth",))
    assert view.depth_m is not None
    assert view.depth_m.dtype == np.float32
    assert view.depth_m[0, 0] == ours


def test_normals_are_unit_length() -> None:
    view = convert_view(channels(Combined_A=1.0, Normal_X=0.3, Normal_Z=-0.4), ("normal",))
    assert view.normal is not None
    np.testing.assert_allclose(view.normal[0, 0], [0.6, 0, -0.8], atol=1e-7)  # float32


def test_albedo_of_partly_covered_pixels_keeps_its_colour() -> None:
    half = channels(Combined_A=0.5, BaseColour_G=0.5 * 0.21404114, BaseWeight_X=0.5, DiffCol_R=1.0)
    view = convert_view(half, ("albedo",))
    assert view.albedo is not None
    assert view.albedo[0, 0].tolist() == [0, 128, 0]


def test_albedo_falls_back_on_passes() -> None:
    view = convert_view(channels(Combined_A=0.5, DiffCol_R=0.5 * 0.1, GlossCol_R=0.5 * 0.11404114), ("albedo",))
    assert view.albedo is not None
    assert view.albedo[0, 0].tolist() == [128, 0, 0]


def test_not_finite_colours_become_black() -> None:
    view = convert_view(channels(Combined_R=np.nan, Combined_A=1.0), ())
    assert view.rgba[0, 0].tolist() == [0, 0, 0, 255]


def test_camera_normals_are_world_normals_in_opencv_axes() -> None:
    # from azimuth 0 at the horizon the camera stands at -Y: world +X is its right, +Z its up (-y), -Y towards it (-z)
    pose = RING24.orbit(0.0, 8, 8).T_world_camera[0]
    for world, camera in (
        ({"Normal_X": 2.0}, [1, 0, 0]),
        ({"Normal_Z": 2.0}, [0, -1, 0]),
        ({"Normal_Y": -2.0}, [0, 0, -1]),
    ):
        view = convert_view(channels(Combined_A=1.0, **world), ("camera_normal",), pose)
        assert view.normal is None
        assert view.camera_normal is not None
        assert view.camera_normal.dtype == np.float32
        np.testing.assert_allclose(view.camera_normal[0, 0], camera, atol=1e-6)  # float32


def test_material_is_divided_by_its_weight() -> None:
    half = channels(Combined_A=1.0, Roughness_V=0.25 * 0.6, Metallic_V=0.25, BaseWeight_X=0.25)
    view = convert_view(half, ("material",))
    assert view.material is not None
    assert view.material.dtype == np.uint8
    assert view.material[0, 0].tolist() == [153, 255]  # 0.6 * 255, linear


def test_material_of_unread_shaders_and_of_nothing() -> None:
    unread = convert_view(channels(Combined_A=1.0), ("material",)).material
    nothing = convert_view(channels(Roughness_V=1.0, BaseWeight_X=1.0), ("material",)).material
    assert unread is not None
    assert nothing is not None
    assert (unread[0, 0].tolist(), nothing[0, 0].tolist()) == ([128, 0], [0, 0])


def test_missing_channel() -> None:
    broken = {name: pixels for name, pixels in channels().items() if name != "Normal.Y"}
    with pytest.raises(FarmError, match=r"Blender's EXR has no channel 'Normal\.Y'"):
        convert_view(broken, ("normal",))


def test_unreadable_file(tmp_path: Path) -> None:
    path = tmp_path / "a.exr"
    path.write_bytes(b"no")
    with pytest.raises(FarmError, match=r"a\.exr: Blender's EXR cannot be read"):
        read_channels(path)
