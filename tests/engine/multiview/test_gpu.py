"""What only a CUDA device can show: the same results as on a CPU, offloading, graphs, and the memory of the true sizes."""

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from transformers.models.dpt.configuration_dpt import DPTConfig
from transformers.models.dpt.modeling_dpt import DPTForDepthEstimation

from engine.multiview.hi3d import Hi3DPipeline
from engine.multiview.networks.depth import DepthEstimator
from engine.multiview.networks.encoders import ImageEncoder
from engine.multiview.networks.orbit_video import OrbitVideoUNet
from engine.multiview.networks.text_orbit import TextOrbitUNet
from engine.multiview.pictures import Picture
from engine.multiview.random_weights import random_hi3d, random_videomv
from engine.multiview.settings import Hi3DSettings, Sampling
from engine.multiview.sizes import RELEASED_VAE, TINY_UNET
from engine.presets import PRESETS

pytestmark = pytest.mark.gpu
GB = 1e9
MIDAS = DPTConfig(
    is_hybrid=True, backbone_out_indices=[0, 1, 8, 11], neck_hidden_sizes=[256, 512, 768, 768], image_size=384
)


@pytest.fixture(scope="module", autouse=True)
def needs_cuda() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


def test_views_are_those_of_a_cpu() -> None:
    pipeline = random_videomv(PRESETS["tiny"].settings["text"])
    sampling = Sampling(steps=2, refinement="off")
    on_cpu = pipeline(prompt="a red cup", sampling=sampling).images.rgba
    on_cuda = pipeline.to("cuda")(prompt="a red cup", sampling=sampling).images.rgba
    # The same noise, drawn on the CPU; float32 sums in other orders, TF32 off.
    assert np.abs(on_cpu.astype(int) - on_cuda.astype(int)).mean() < 1


def test_refinement_runs_on_cuda_and_repeats_itself() -> None:
    pipeline = random_videomv(PRESETS["tiny"].settings["text"]).to("cuda")
    one, again = (pipeline(prompt="a cup", sampling=Sampling(steps=3, refine_first=0.34)) for _ in range(2))
    assert one.record["refined_steps"] == [1]
    np.testing.assert_array_equal(one.images.rgba, again.images.rgba)


def test_offloaded_networks_give_the_same(picture_of_ball: Picture) -> None:
    pipeline = random_hi3d(PRESETS["tiny-hi3d"].settings["picture"])
    sampling = Sampling(steps=2)
    on_cuda = pipeline.to("cuda")(picture=picture_of_ball, sampling=sampling).images.rgba
    pipeline.enable_model_cpu_offload("cuda")
    offloaded = pipeline(picture=picture_of_ball, sampling=sampling).images.rgba
    np.testing.assert_array_equal(offloaded, on_cuda)
    assert {str(next(part.parameters()).device) for part in pipeline.modules.values()} >= {"cpu"}


def test_half_precision_runs(picture_of_ball: Picture) -> None:
    for dtype in (torch.bfloat16, torch.float16):
        made = random_hi3d(PRESETS["tiny-hi3d"].settings["picture"]).to("cuda", dtype)(
            picture=picture_of_ball, sampling=Sampling(steps=2)
        )
        assert made.images.rgba.std() > 0


@torch.no_grad()
def test_a_step_can_be_captured_as_a_graph() -> None:
    torch.manual_seed(0)
    network = TextOrbitUNet(**TINY_UNET).cuda().eval()
    given = {
        "latents": torch.randn(2, 24, 4, 8, 8, device="cuda"), "timestep": torch.full((2,), 501.0, device="cuda"),
        "text": torch.randn(2, 77, 32, device="cuda"), "cameras": torch.randn(2, 24, 16, device="cuda"),
    }  # fmt: skip
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            expected = network(**given)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        made = network(**given)
    made.zero_()
    graph.replay()
    torch.testing.assert_close(made, expected, rtol=1e-4, atol=1e-5)


def released_hi3d() -> Hi3DPipeline:
    """Hi3D at its released size with random weights, without the aesthetic score."""
    with torch.device("cuda"):
        parts = {
            "unet": OrbitVideoUNet(projection_class_embeddings_input_dim=512),
            "refiner": OrbitVideoUNet(in_channels=17, projection_class_embeddings_input_dim=512),
            "vae": AutoencoderKL(**RELEASED_VAE),
            "depth": DepthEstimator(DPTForDepthEstimation(MIDAS)),
            "image_encoder": ImageEncoder.fresh(
                "hi3d", embedding=1024, width=1280, layers=32, head_width=80, size_px=224, patch_px=14
            ),
        }
    ready = {name: part.to("cpu", torch.bfloat16).eval().requires_grad_(False) for name, part in parts.items()}
    torch.cuda.empty_cache()
    return Hi3DPipeline(Hi3DSettings(), ready)


@pytest.mark.slow
@pytest.mark.parametrize("sampling", [Sampling(steps=2), Sampling(steps=2, batched_guidance=False, vae_chunk=1)])
def test_hi3d_at_1024_fits_24_gb_with_offload(picture_of_ball: Picture, sampling: Sampling) -> None:
    pipeline = released_hi3d()
    pipeline.enable_model_cpu_offload("cuda")
    torch.cuda.reset_peak_memory_stats()
    made = pipeline(picture=picture_of_ball, sampling=sampling)
    assert made.images.rgba.shape == (16, 1024, 1024, 4)
    assert torch.cuda.max_memory_reserved() < 24 * GB
