"""The renderers agree with the oracle, in pictures and in gradients; the oracle agrees with arithmetic done by hand."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.errors import MissingDependencyError
from engine.geometry import RING24, Camera, look_at, project
from engine.splats import Gaussians, Rendering, render
from engine.splats.limits import BLUR_PX2
from engine.splats.rendering import render_colour

FIELDS = ("colour", "alpha", "depth_m", "normal")
PARAMETERS = ("means", "log_scales", "quaternions", "opacity_logits", "sh")
BACKGROUND = torch.tensor([0.2, 0.4, 0.6])


def cloud(n: int, seed: int, degree: int = 1) -> Gaussians:
    """A shell of Gaussians, some behind others, some outside the picture, some almost transparent."""
    g = torch.Generator().manual_seed(seed)
    directions = torch.nn.functional.normalize(torch.randn(n, 3, generator=g), dim=-1)
    return Gaussians(
        0.4 * directions + 0.1 * torch.randn(n, 3, generator=g),
        0.5 * torch.randn(n, 3, generator=g) - 3.5,
        torch.randn(n, 4, generator=g),
        2.5 * torch.randn(n, generator=g),
        0.3 * torch.randn(n, (degree + 1) ** 2, 3, generator=g),
    )


def one_splat(place: list[float], scales: list[float], opacity: float, colour: list[float]) -> Gaussians:
    """A single axis-aligned Gaussian of a plain colour."""
    sh = (torch.tensor(colour) - 0.5) / 0.28209479177387814
    return Gaussians(
        torch.tensor([place]),
        torch.tensor([scales]).log(),
        torch.tensor([[1.0, 0, 0, 0]]),
        torch.logit(torch.tensor([opacity])),
        sh.view(1, 1, 3),
    )


def gradients(gaussians: Gaussians, cameras: list[Camera], backend: str, seed: int) -> tuple[Rendering, list]:
    """Render and push random weights through every output."""
    leaves = Gaussians(*(tensor.clone().requires_grad_() for tensor in gaussians.tensors))
    made = render(leaves, cameras, BACKGROUND, backend=backend)
    g = torch.Generator().manual_seed(seed)
    outputs = [getattr(made, field) for field in FIELDS]
    loss = sum((o * torch.randn(o.shape, generator=g).to(o)).sum() for o in outputs)
    loss.backward()
    return made, [tensor.grad for tensor in leaves.tensors]


@pytest.mark.parametrize("backend", ["numba", pytest.param("gsplat", marks=pytest.mark.gpu)])
@pytest.mark.parametrize(("seed", "degree"), [(0, 0), (1, 1), (2, 2), (3, 3)])
def test_agrees_with_the_oracle(backend: str, seed: int, degree: int) -> None:
    device = "cuda" if backend == "gsplat" else "cpu"
    gaussians = cloud(400, seed, degree).to(device)
    cameras = RING24.orbit(20.0, 70, 50).subset([1, 9]).cameras  # neither size is a multiple of the tile
    made, made_gradients = gradients(gaussians, cameras, backend, seed)
    true, true_gradients = gradients(gaussians, cameras, "torch", seed)
    # Both sum the same float32 terms in another order. A splat that one counts and the other does not, because its
    # alpha lies on 1/255 to the last bit, moves a pixel by 1/255; numba's exp is exact enough that none does here,
    # CUDA's __expf is not.
    tolerance = 2e-5 if backend == "numba" else 5e-3
    for field in FIELDS:
        torch.testing.assert_close(
            getattr(made, field), getattr(true, field), atol=tolerance, rtol=tolerance, msg=field
        )
    # Gradients are sums of thousands of terms of both signs: compared by the length of the difference.
    for name, ours, theirs in zip(PARAMETERS, made_gradients, true_gradients, strict=True):
        error = (ours - theirs).norm() / theirs.norm()
        assert error < (2e-4 if backend == "numba" else 5e-3), f"{name}: relative error {error:.2e}"


@pytest.mark.slow
def test_the_oracles_gradients_are_those_of_finite_differences() -> None:
    gaussians = cloud(12, 5, degree=2)
    # double precision, and away from the thresholds, where the function is smooth
    leaves = [tensor.double().requires_grad_() for tensor in gaussians.tensors]
    with torch.no_grad():
        leaves[3].clamp_(-1.0, 1.0)
        leaves[1].clamp_(-2.5, -1.5)
    camera = RING24.orbit(10.0, 12, 12).camera(4)

    def centre_pixels(*tensors: torch.Tensor) -> torch.Tensor:
        made = render(Gaussians(*tensors), [camera], BACKGROUND.double(), backend="torch")
        return torch.cat([made.colour[0, 5:7, 5:7].flatten(), made.depth_m[0, 5:7, 5:7].flatten()])

    assert torch.autograd.gradcheck(centre_pixels, leaves, eps=1e-6, atol=1e-5)


@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_one_splat_is_the_gaussian_of_the_textbook(backend: str) -> None:
    camera = Camera.from_fov(look_at(np.array([0.0, -2.0, 0.0]), np.zeros(3)), 40.0, 65, 65)
    splat = one_splat([0.0, 0.0, 0.0], [0.10, 0.05, 0.04], 0.8, [0.9, 0.5, 0.1])
    made = render(splat, [camera], torch.zeros(3), backend=backend)
    # Seen straight on at 2 m: sigma in pixels is focal * sigma / 2 across and up, plus the blur.
    variance_u = (camera.focal_px * 0.10 / 2) ** 2 + BLUR_PX2
    variance_v = (camera.focal_px * 0.04 / 2) ** 2 + BLUR_PX2
    offset = np.arange(65) - 32.0
    alpha = 0.8 * np.exp(-0.5 * (offset[None, :] ** 2 / variance_u + offset[:, None] ** 2 / variance_v))
    alpha[alpha < 1 / 255] = 0
    # 1e-4: float32 exponentials of sums of float32 squares
    np.testing.assert_allclose(made.alpha[0].numpy(), alpha, atol=1e-4)
    np.testing.assert_allclose(made.colour[0].numpy(), alpha[..., None] * [0.9, 0.5, 0.1], atol=1e-4)
    assert made.depth_m[0, 32, 32].item() == pytest.approx(2.0, abs=1e-5)
    # the shortest axis is the vertical one; it lies across the view, so either sign faces the camera
    assert abs(made.normal[0, 32, 32, 2].item()) == pytest.approx(0.8, abs=1e-4)


@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_the_nearer_splat_hides_the_farther(backend: str) -> None:
    near = one_splat([0.0, -0.5, 0.0], [0.2, 0.2, 0.2], 0.6, [1.0, 0.0, 0.0])
    far = one_splat([0.0, 0.5, 0.0], [0.2, 0.2, 0.2], 0.9, [0.0, 1.0, 0.0])
    both = Gaussians(*(torch.cat(pair) for pair in zip(far.tensors, near.tensors, strict=True)))
    camera = Camera.from_fov(look_at(np.array([0.0, -2.0, 0.0]), np.zeros(3)), 40.0, 33, 33)
    pixel = render(both, [camera], torch.tensor([0.0, 0.0, 1.0]), backend=backend).colour[0, 16, 16]
    torch.testing.assert_close(pixel, torch.tensor([0.6, 0.4 * 0.9, 0.4 * 0.1]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_splats_stand_where_geometry_projects_them(backend: str) -> None:
    rng = np.random.default_rng(3)
    orbit = RING24.orbit(25.0, 96, 96)
    for index in range(0, 24, 5):
        place = rng.uniform(-0.4, 0.4, 3)
        splat = one_splat(place.tolist(), [0.02, 0.02, 0.02], 0.9, [1.0, 1.0, 1.0])
        alpha = render(splat, [orbit.camera(index)], backend=backend).alpha[0].numpy().astype(np.float64)
        v, u = np.mgrid[:96, :96] + 0.5
        centroid = np.array([(alpha * u).sum(), (alpha * v).sum()]) / alpha.sum()
        pixel, _ = project(orbit.camera(index), place[None])
        # 0.05 px: alpha below 1/255 is cut off, and the tails of the picture are not quite symmetric in perspective
        np.testing.assert_allclose(centroid, pixel[0], atol=0.05)


@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_nothing_is_drawn_behind_the_camera_or_of_nothing(backend: str) -> None:
    camera = RING24.orbit(0.0, 16, 16).camera(0)
    behind = one_splat([0.0, -3.0, 0.0], [0.1, 0.1, 0.1], 0.9, [1.0, 0.0, 0.0])
    empty = Gaussians(*(tensor[:0] for tensor in behind.tensors))
    for gaussians in (behind, empty):
        made = render(gaussians, [camera], backend=backend)
        assert made.alpha.max() == 0
        assert made.depth_m.max() == 0
        torch.testing.assert_close(made.colour, torch.ones(1, 16, 16, 3))


def test_the_same_gaussians_give_the_same_bytes() -> None:
    camera = RING24.orbit(12.0, 64, 64).camera(7)
    first, second = (render_colour(cloud(500, 9), camera)[0] for _ in range(2))
    assert first.numpy().tobytes() == second.numpy().tobytes()


def test_colour_alone_is_the_colour_of_the_whole_rendering() -> None:
    camera, gaussians = RING24.orbit(12.0, 40, 40).camera(2), cloud(300, 11)
    colour, alpha = render_colour(gaussians, camera)
    whole = render(gaussians, [camera], torch.zeros(3))
    torch.testing.assert_close(colour.permute(1, 2, 0), whole.colour[0])
    torch.testing.assert_close(alpha, whole.alpha[0])


def test_what_cannot_be_rendered_is_said() -> None:
    gaussians = cloud(3, 0)
    with pytest.raises(ValueError, match="cameras must hold at least one camera"):
        render(gaussians, [])
    sizes = [RING24.orbit(0.0, 8, 8).camera(0), RING24.orbit(0.0, 9, 9).camera(0)]
    with pytest.raises(ValueError, match="cameras must share one size, got"):
        render(gaussians, sizes)
    with pytest.raises(MissingDependencyError, match="gsplat runs on CUDA only"):
        render(gaussians, sizes[:1], backend="gsplat")


def test_numba_leaves_torchs_threads_alone() -> None:
    # A process of its own: numba starts its threads once. With OpenMP under both, it used to set torch's number too.
    code = (
        "import torch; torch.set_num_threads(1)\n"
        "from engine.geometry import RING24\nfrom engine.splats import render\n"
        "from tests.engine.splats.test_renderers import cloud\n"
        "render(cloud(8, 0), [RING24.orbit(15.0, 32, 32).camera(0)])\nprint(torch.get_num_threads())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3],
        env=os.environ | {"NUMBA_NUM_THREADS": "2", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.stdout == "1\n"
