"""What VideoMV's, Hi3D's and LGM's published code computes, run once on a CPU in float32; numbers only.

The code (alibaba/VideoMV with ali-vilab/VGen's layers, yanghb22-fdu/Hi3D-Official with Stability-AI/generative-models',
3DTopia/LGM) was run with attention written out and without its GPU calls, on small networks. Nothing is stored of the
weights and inputs: `numbers` draws each by its name, weights by the release's names, so that a tensor that lands in the
wrong place is seen. Of an output eight evenly spaced numbers are kept, and the root mean square of all.
"""

import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from engine.checkpoints.keys_hi3d import orbit_video_from_release, orbit_video_to_release
from engine.checkpoints.keys_lgm import lgm_from_release, lgm_to_release
from engine.checkpoints.keys_videomv import image_orbit_from_release, text_orbit_from_release, videomv_to_release
from engine.geometry import RING16, RING24
from engine.geometry.frames import lgm_input_poses, lgm_rasterizer_matrices, lgm_rays, to_lgm, to_videomv
from engine.multiview.ddim import sample_ddim
from engine.multiview.denoiser import RefinementPlan
from engine.multiview.edm import LowResolutionInjection, sample_euler_edm
from engine.multiview.guidance import Guided, linear_scale, zeroed
from engine.multiview.networks.image_orbit import ImageOrbitUNet
from engine.multiview.networks.orbit_video import OrbitVideoUNet, conditioning_vector
from engine.multiview.networks.text_orbit import TextOrbitUNet
from engine.multiview.schedules import cosine_zero_snr, edm_sigmas, linear_sd
from engine.splats.reconstructor import GaussianUNet, Reconstructor
from engine.splats.reconstructor.heads import published_numbers

NETWORK = 2e-5
"""Of outputs of size 1: float32 in another order of sums; 3e-6 is seen, 1e-4 is asked."""
SAMPLER = 2e-5
"""Relative to the largest number: float32 through 50 steps and a guidance of 9; 1e-3 is asked."""
CAMERA = 5e-6
"""The published code inverts matrices in float32; numbers up to 8."""
LEVELS = {
    "down_block_types": ["CrossAttnDownBlock3D", "CrossAttnDownBlock3D", "DownBlock3D"],
    "up_block_types": ["UpBlock3D", "CrossAttnUpBlock3D", "CrossAttnUpBlock3D"],
    "block_out_channels": [32, 64, 64],
    "cross_attention_dim": 1024,
    "attention_head_dim": 16,
    "temporal_in_heads": 4,
}
"""dim 32, dim_mult [1, 2, 2], num_heads 4, head_dim 16, num_res_blocks 2, attn_scales [1, 1/2] in the release's words."""
SMALL = ("input_blocks.0.0.", "input_blocks.0.1.proj_out.", "unet.conv_in.")
"""What comes before the first residual block: drawn small, so that the epsilons of the norms after it count."""
# fmt: off
EXPECTED = {
    "image_3": [-1.088556, 0.5442593, -0.07128973, -0.8054522, -0.5098572, -1.329575, 0.7600185, 0.2009581, 0.6638021],
    "image_1": [-0.03471792, -0.5749757, -0.4276595, -0.4665668, 0.768828, -1.159714, -1.015688, 0.2509023, 0.6625762],
    "text_5": [-0.6991947, 1.170377, 0.6555904, -0.4545283, -0.369503, -0.7914636, 0.1920573, -0.203101, 0.6675264],
    "text_1": [-0.1554663, -0.7634761, -0.2665734, 1.156526, -0.2202468, 0.0654651, -1.274036, 0.4496911, 0.6562297],
    "refiner": [
        -0.5573753, -0.02192143, -0.02536332, -0.7387723, -0.3767702, 0.3646778, -1.220726, 0.1536672,
        0.6385707,
    ],
    "alpha_bars_text": [0.99915, 0.998296027838, 0.782654437386, 0.179863606683, 0.0057755001395, 0.00471669889988],
    "ddim_text_50": [13.7528, 14.56789, -19.21743, 13.95222, 6.971716, -12.6769, 3.058364, -11.08925, 10.18752],
    "ddim_text_10": [13.58222, 19.44733, -20.35512, 18.92307, 6.282131, -27.49691, 2.321879, -13.03649, 11.36364],
    "ddim_text_50_3d": [11.11495, 12.08387, -15.28476, 12.32838, 6.785893, -10.08619, 2.648479, -9.014903, 8.343592],
    "alpha_bars_picture": [
        0.999958715775, 0.999912573653, 0.915005133599, 0.367616156871, 0.000784029864764, 2.27781147899e-06,
    ],
    "ddim_picture_50": [1.915314, 2.364534, -2.506549, 2.240889, 1.354498, -1.914263, 0.5074775, -1.772358, 1.500131],
    "ddim_picture_10": [1.854504, 2.310125, -2.435545, 2.181015, 1.29583, -1.873868, 0.4828437, -1.73636, 1.457653],
    "ddim_picture_50_3d": [1.813351, 2.238033, -2.36508, 2.123206, 1.30127, -1.824874, 0.4886788, -1.697459, 1.428878],
    "edm_1_25": [0.4208422, -0.4827306, 0.5362618, -0.3240516, -1.114886, -0.2789096, 1.308167, 0.2562562, 0.7297452],
    "edm_2_25": [0.6399195, -0.6632076, 0.1616895, -0.4510786, -0.2073683, -0.4063791, 0.749751, 0.7399425, 0.5899896],
    "edm_2_10": [0.4837229, -0.4318542, 0.2994788, -0.3819373, -0.3267668, -0.2696182, 0.4999141, 0.7320449, 0.5086678],
    "vector": [
        5.5, -0.8548506, -0.3336347, -0.7214141, 0.9999998, 0.0003079852, -0.2013037, 0.9827688, 0.9990319,
        0.01855619, 1.0, 2.149215e-06, 0.7374437,
    ],
    "vector_picked": [
        6.25, -0.9843873, 0.8853411, 0.9977428, 0.1760163, -0.2304592, 0.06715047, 0.0, -0.01327675, 0.1782403,
        0.9999118, 0.553726, 0.003546197, 0.9998, 0.01999867, 0.0002667043,
    ],
    "camera": [
        -0.9659258, 0.1294095, 0.2241439, 0.5379453, 0.258819, 0.4829629, 0.8365163, 2.007639, 0.0, 0.8660254,
        -0.5, -1.2, 0.0, 0.0, 0.0, 1.0,
    ],
    "rays_consistent": [0.2087957, -0.348586, 0.2050415, -0.8884839, -0.4021776, 0.2210193],
    "view_projection_consistent": [
        -0.7188976, 1.259575, -1.279293, -0.8528619, 1.259575, -2.006965, -0.7827063, -0.5218042, -2.368915,
        -1.449367, -0.02794373, -0.01862915, -2.869486e-07, -1.655583e-07, 1.925, 1.7,
    ],
    "rays_released": [0.9413362, 3.266468, 0.455052, 0.9614294, -0.2743706, -0.01935087],
    "view_projection_released": [
        -0.7188976, -1.259575, 1.279293, 0.8528619, -1.259575, -2.006965, -0.7827063, -0.5218042, 2.368915,
        -1.449367, -0.02794373, -0.01862915, -8.054312, 4.927848, -3.079991, -1.636661,
    ],
    "lgm_rays": [-0.2410821, -0.4429044, 0.7399744, -0.9529648, 0.01280277, -0.3028109],
    "lgm_view_projection": [
        0.8660254, 0.5130302, -1.220697, -0.8137977, 2.980232e-08, -1.627595, -0.5130302, -0.3420202, -1.5,
        0.2961981, -0.7047695, -0.4698463, 0.0, 0.0, 2.675, 2.2,
    ],
    "gaussians": [
        -0.561326, -0.0497571, 0.475227, 0.732358, 0.0443423, 0.0385383, 0.0471629, -0.0385813, 0.018761,
        0.0198215, 0.0449158, 0.387068, 0.373841, 0.623474,
    ],
    "gaussians_all": [
        -0.2420608, 0.08100703, 0.01519466, 0.396364, 0.06190064, 0.02945704, 0.01908998, 0.6500946, 0.4299784,
    ],
}
# fmt: on
"""By the release's own code, its layout [b, c, f, h, w] turned to ours."""


def numbers(name: str, *shape: int) -> Tensor:
    """Unit normal numbers that belong to a name; RandomState's stream is frozen for good."""
    drawn = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    return torch.from_numpy(drawn.astype(np.float32))


def weights(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights by released names: none is silent, none explodes."""
    made = {}
    for name, tensor in tensors.items():
        drawn = numbers(name, *tensor.shape)
        if drawn.ndim > 1:
            drawn = drawn * float(np.prod(drawn.shape[1:])) ** -0.5
        else:
            drawn = 0.2 * drawn + (1 if name.endswith("weight") else 0)
        made[name] = 0.01 * drawn if name.startswith(SMALL) else drawn
    return made


def released(kind: type[nn.Module], to_release: Callable, from_release: Callable, **config: object) -> nn.Module:
    """A small network with the named weights, by way of the release's names."""
    with torch.device("meta"):
        names = to_release(kind(**config).state_dict())
    made = from_release(weights(names))
    network = kind(**made.config)
    network.load_state_dict(made.tensors)
    return network.eval()


def check(name: str, found: Tensor, tolerance: float, places: int = 8) -> None:
    """Compare with what the published code gave."""
    flat = found.detach().double().flatten()
    kept = flat[torch.linspace(0, len(flat) - 1, places).round().long()]
    summary = [*kept.tolist(), (flat**2).mean().sqrt().item()]
    expected = np.array(EXPECTED[name])
    np.testing.assert_allclose(summary, expected, rtol=0, atol=tolerance * max(1, float(np.abs(expected).max())))


# ---------------------------------------------------------------- networks
@pytest.fixture(scope="module")
def image_network() -> nn.Module:
    return released(
        ImageOrbitUNet, videomv_to_release, lambda tensors: image_orbit_from_release(tensors, head_dim=16), **LEVELS
    )


@pytest.mark.parametrize(("views", "side"), [(3, 24), (1, 16)])
def test_the_image_network(image_network: nn.Module, views: int, side: int):
    """With cameras, frame rate and all three ways in of the picture; 24 and 16 are pooled to 32."""
    with torch.no_grad():
        found = image_network(
            numbers("latents", 1, views, 4, side, side),
            torch.tensor([581]),
            numbers("text", 1, 77, 1024),
            numbers("image_embedding", 1, 1, 1024),
            numbers("image_latents", 1, 4, side, side),
            numbers("cameras", 1, views, 16),
        )
    check(f"image_{views}", found, NETWORK)


@pytest.mark.parametrize(("views", "with_cameras"), [(5, True), (1, False)])
def test_the_text_network_of_three_levels(views: int, with_cameras: bool):
    network = released(
        TextOrbitUNet, videomv_to_release, lambda tensors: text_orbit_from_release(tensors, head_dim=16), **LEVELS
    )
    cameras = numbers("cameras", 2, views, 16) if with_cameras else None
    with torch.no_grad():
        found = network(
            numbers("latents", 2, views, 4, 16, 16), torch.tensor([981, 1]), numbers("text", 2, 77, 1024), cameras
        )
    check(f"text_{views}", found, NETWORK)


def test_hi3ds_second_stage():
    network = released(
        OrbitVideoUNet,
        orbit_video_to_release,
        lambda tensors: orbit_video_from_release(tensors, head_dim=16),
        in_channels=17,
        down_block_types=["CrossAttnDownBlockSpatioTemporal"] * 2 + ["DownBlockSpatioTemporal"],
        up_block_types=["UpBlockSpatioTemporal"] + ["CrossAttnUpBlockSpatioTemporal"] * 2,
        block_out_channels=[32, 64, 64],
        projection_class_embeddings_input_dim=512,
        cross_attention_dim=64,
        num_attention_heads=[2, 4, 4],
    )
    with torch.no_grad():
        found = network(
            numbers("latents", 2, 3, 4, 16, 16),
            torch.tensor([1.5, -0.7]),
            numbers("tokens", 2, 1, 64),
            numbers("concatenated", 2, 3, 13, 16, 16),
            numbers("vector", 2, 512),
        )
    check("refiner", found, NETWORK)


def test_videomvs_reconstructor():
    """Rays of our cameras, and quaternions over all 1024 Gaussians as VideoMV's copy of LGM has them."""
    network = released(
        GaussianUNet,
        lambda tensors: lgm_to_release(tensors),
        lambda tensors: lgm_from_release(tensors, input_size=32, radius_m=None, quaternion_norm="over_gaussians"),
        down_channels=(32, 64, 64),
        down_attention=(False, True, True),
        up_channels=(64, 64),
        up_attention=(True, False),
        input_size=32,
    )
    reconstructor = Reconstructor(network)
    views = replace(RING24, distance_m=1.7).orbit(28.0, 32, 32).subset([0, 6, 12, 18])
    images = numbers("images", 1, 4, 3, 32, 32).sigmoid()
    with torch.no_grad():
        raw = network(reconstructor.inputs(images, reconstructor.frames(images, [views.cameras])))
        found = published_numbers(raw, "over_gaussians")
    check("gaussians_all", found, NETWORK)
    np.testing.assert_allclose(found[0, 777], EXPECTED["gaussians"], rtol=0, atol=NETWORK)


# ---------------------------------------------------------------- samplers, around formulas instead of networks
SHAPE = (2, 4, 4, 3, 5)


def wavy(latents: Tensor, time: Tensor, told: Tensor) -> Tensor:
    views = latents.mean(1, keepdim=True)
    return torch.tanh(0.8 * latents + 0.5 * told) - 0.3 * torch.cos(time / 300).view(-1, 1, 1, 1, 1) * views


def through_3d(x0: Tensor) -> Tensor:
    """Stands for decoding, reconstructing, rendering and encoding: not linear, and across views."""
    return 0.8 * torch.tanh(x0) + 0.1 * x0.mean(1, keepdim=True) ** 2 - 0.05


@pytest.mark.parametrize(("steps", "aware"), [(50, False), (10, False), (50, True)])
@pytest.mark.parametrize(
    ("kind", "schedule", "scale"), [("text", linear_sd(), 9.0), ("picture", cosine_zero_snr(), 6.0)]
)
def test_videomvs_sampler(kind, schedule, scale, steps, aware):
    """The 3D-aware one refines the x0 of both branches at steps 20, 30 and 40 and guides between the refined."""
    guided = Guided(wavy, {"told": numbers("told", *SHAPE)}, {"told": numbers("not told", *SHAPE)})
    plan = RefinementPlan(through_3d, (20, 30, 40), "both") if aware else None
    noise = numbers("noise", *SHAPE)
    found = sample_ddim(guided, noise, schedule, steps=steps, guidance_scale=scale, refinement=plan)
    check(f"ddim_{kind}_{steps}{'_3d' if aware else ''}", found, SAMPLER)


@pytest.mark.parametrize(("kind", "schedule"), [("text", linear_sd()), ("picture", cosine_zero_snr())])
def test_videomvs_noise_schedules(kind, schedule):
    found = schedule.alpha_bars[[0, 1, 181, 581, 981, 998]]
    np.testing.assert_allclose(found, EXPECTED[f"alpha_bars_{kind}"], rtol=1e-10)  # 12 digits are kept


def wavy_with_conditions(latents: Tensor, time: Tensor, tokens: Tensor, concatenated: Tensor, vector: Tensor) -> Tensor:
    def each(values: Tensor) -> Tensor:
        return values.view(-1, 1, 1, 1, 1)

    seen = 0.3 * concatenated[:, :, -4:] + 0.2 * concatenated[:, :, :1] + each(tokens.mean((1, 2)))
    waves = 0.2 * each(torch.cos(3 * time)) * latents.mean(1, keepdim=True)
    return torch.tanh(0.7 * latents + seen) - waves + 0.1 * each(vector.mean(1))


@pytest.mark.parametrize(
    ("stage", "channels", "last_scale", "steps"), [(1, 4, 2.5, 25), (2, 13, 2.0, 25), (2, 13, 2.0, 10)]
)
def test_hi3ds_samplers(stage, channels, last_scale, steps):
    """Guidance grows over the views; the second stage mixes the low-resolution latents in before each step."""
    told = {
        "tokens": numbers("tokens", 1, 1, 8),
        "concatenated": numbers("concatenated", 1, 16, channels, 4, 4),
        "vector": numbers("vector", 1, 8),
    }
    guided = Guided(wavy_with_conditions, told, zeroed(told, ("tokens", "concatenated")))
    low = LowResolutionInjection(numbers("low", 1, 16, 4, 4, 4)) if stage == 2 else None
    scale = linear_scale(1.0, last_scale, 16)
    noise = numbers("noise", 1, 16, 4, 4, 4)
    found = sample_euler_edm(guided, noise, edm_sigmas(steps), guidance_scale=scale, injection=low)
    check(f"edm_{stage}_{steps}", found, SAMPLER)


def test_what_hi3d_is_told():
    """Aesthetic score, elevation and augmentation of two pictures, in the order of the release's embedders."""
    found = conditioning_vector(torch.tensor([-10.0, 33.0]), torch.full((2,), 0.02), torch.tensor([5.5, 6.25]))
    check("vector", found, 1e-5, places=12)  # sines of angles up to 625 in float32
    places = [0, 1, 20, 127, 128, 200, 254, 255, 256, 300, 384, 440, 511, 512, 640, 700]
    np.testing.assert_allclose(found[1, places], EXPECTED["vector_picked"], rtol=0, atol=6e-5)  # 625's last bit: 6e-5


# ---------------------------------------------------------------- cameras
def test_a_camera_as_videomv_is_told():
    poses = replace(RING24, distance_m=2.4).orbit(-30.0, 256, 256).T_world_camera
    np.testing.assert_allclose(to_videomv(poses[5]), EXPECTED["camera"], rtol=0, atol=CAMERA)


@pytest.mark.parametrize("rule", ["consistent", "released"])
def test_cameras_of_videomvs_reconstructor(rule):
    orbit = replace(RING24, distance_m=1.7).orbit(28.0, 32, 32)
    poses = lgm_input_poses(orbit.T_world_camera, released_flip=rule == "released")
    rays = lgm_rays(poses, orbit.cameras)
    np.testing.assert_allclose(rays[7, :, 5, 9], EXPECTED[f"rays_{rule}"], rtol=0, atol=CAMERA)
    _, view_projection, _ = lgm_rasterizer_matrices(poses, RING24.fov_deg)
    expected = EXPECTED[f"view_projection_{rule}"]
    np.testing.assert_allclose(view_projection[7].ravel(), expected, rtol=0, atol=CAMERA)


def test_lgms_own_cameras():
    """Its orbit_camera(-20, 60, radius=2.2) at a field of view of 60 degrees: it counts elevation downwards."""
    orbit = replace(RING16, views=6, distance_m=2.2, fov_deg=60.0).orbit(20.0, 32, 32).subset([1])
    poses = to_lgm(orbit.T_world_camera)
    rays = lgm_rays(poses, orbit.cameras)
    np.testing.assert_allclose(rays[0, :, 5, 9], EXPECTED["lgm_rays"], rtol=0, atol=CAMERA)
    _, view_projection, _ = lgm_rasterizer_matrices(poses, 60.0)
    np.testing.assert_allclose(view_projection.ravel(), EXPECTED["lgm_view_projection"], rtol=0, atol=CAMERA)
