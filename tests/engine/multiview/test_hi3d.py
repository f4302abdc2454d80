"""Hi3D's pipeline with small random weights: what both stages are told, what comes out, what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

from engine.errors import CheckpointError, TurntableError
from engine.multiview.generation import GenerationProgress
from engine.multiview.hi3d import Hi3DPipeline
from engine.multiview.networks.orbit_video import OrbitVideoUNet, conditioning_vector
from engine.multiview.orbits import OrbitRequest
from engine.multiview.pictures import Picture, hi3d_framing
from engine.multiview.random_weights import random_hi3d
from engine.multiview.settings import Sampling
from engine.multiview.sizes import TINY_VIDEO_UNET
from engine.presets import PRESETS

FAST = Sampling(steps=2)


@pytest.fixture(scope="module")
def hi3d() -> Hi3DPipeline:
    return random_hi3d(PRESETS["tiny-hi3d"].settings["picture"])


class Listening(torch.nn.Module):
    """A network that passes what it is told on to another one."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network, self.config = network, network.config
        self.told: list[dict[str, torch.Tensor]] = []

    def forward(self, latents, timestep, **conditions):  # type: ignore[no-untyped-def]
        self.told.append({"latents": latents, "timestep": timestep, **conditions})
        return self.network(latents, timestep, **conditions)


def test_both_stages_run_and_repeat_themselves(hi3d: Hi3DPipeline, picture_of_ball: Picture) -> None:
    stages: list[str] = []

    def note(at: GenerationProgress) -> None:
        stages.append(at.stage)

    one = hi3d(picture=picture_of_ball, uid="ball", sampling=FAST, seed=1, on_progress=note)
    again, other = (hi3d(picture=picture_of_ball, sampling=FAST, seed=seed) for seed in (1, 2))
    assert one.images.rgba.shape == (16, 128, 128, 4)
    assert (one.images.orbit.name, one.images.uid) == ("ring16", "ball")
    np.testing.assert_array_equal(one.images.rgba, again.images.rgba)
    assert (one.images.rgba != other.images.rgba).any()
    assert list(dict.fromkeys(stages)) == ["encode", "denoise", "decode", "depth", "refine"]


def test_what_the_stages_are_told(hi3d: Hi3DPipeline, picture_of_ball: Picture) -> None:
    first, second = Listening(hi3d.unet), Listening(hi3d.refiner)
    pipeline = Hi3DPipeline(hi3d.settings, hi3d.components | {"unet": first, "refiner": second})
    made = pipeline(picture=picture_of_ball, orbit=OrbitRequest(elevation_deg=20.0), sampling=FAST)
    score = torch.tensor([made.record["aesthetic"]])
    elevation, augmentation = torch.tensor([20.0]), torch.tensor([0.02])
    for told, vector, channels in (
        (first.told[0], conditioning_vector(elevation, augmentation, score), 4),
        (second.told[0], conditioning_vector(elevation, augmentation), 13),
    ):
        # The report's score is rounded to four digits; its sinusoid is of a hundred times that.
        torch.testing.assert_close(told["vector"], vector.expand(2, -1), rtol=0, atol=0.02)
        assert told["concatenated"].shape[1:3] == (16, channels)
        assert not told["tokens"][0].any()
        assert not told["concatenated"][0].any()
        assert told["tokens"][1].any()
        torch.testing.assert_close(told["timestep"], torch.full((2,), 0.25 * float(np.log(700.0))))
    # Stage 1 repeats the picture's latents for all views; stage 2 begins with depth, which lies in [0, 1].
    seen = first.told[0]["concatenated"][1]
    assert torch.equal(seen, seen[:1].expand_as(seen))
    depth = second.told[0]["concatenated"][1][:, :9]
    assert (float(depth.min()), float(depth.max())) == (0.0, 1.0)
    assert (depth.flatten(1).amax(1) == 1).all()


def test_the_first_view_is_the_picture_where_the_weights_say_so(hi3d: Hi3DPipeline, picture_of_ball: Picture) -> None:
    keeping = Hi3DPipeline(replace(hi3d.settings, keeps_picture=True), hi3d.components)
    made, other = (pipeline(picture=picture_of_ball, sampling=FAST).images.rgba for pipeline in (keeping, hi3d))
    np.testing.assert_array_equal(made[0], hi3d_framing(picture_of_ball, 128).rgba)
    np.testing.assert_array_equal(made[1:], other[1:])


def test_the_second_stage_may_have_steps_of_its_own(hi3d: Hi3DPipeline, picture_of_ball: Picture) -> None:
    first, second = Listening(hi3d.unet), Listening(hi3d.refiner)
    own = Hi3DPipeline(
        replace(hi3d.settings, steps=3, refined_steps=1), hi3d.components | {"unet": first, "refiner": second}
    )
    own(picture=picture_of_ball)
    assert (len(first.told), len(second.told)) == (3, 1)
    own(picture=picture_of_ball, sampling=Sampling(steps=2))
    assert (len(first.told), len(second.told)) == (5, 3)


def test_without_a_refiner_the_first_stage_is_the_result(hi3d: Hi3DPipeline, picture_of_ball: Picture) -> None:
    alone = {name: part for name, part in hi3d.components.items() if name not in ("refiner", "depth")}
    made = Hi3DPipeline(hi3d.settings, alone)(picture=picture_of_ball, sampling=FAST)
    assert made.images.rgba.shape == (16, 64, 64, 4)
    assert made.record["refined"] is False


def test_a_refiner_that_was_trained_without_depth_is_told_zeros(hi3d: Hi3DPipeline, picture_of_ball: Picture) -> None:
    second = Listening(hi3d.refiner)
    parts = {name: part for name, part in hi3d.components.items() if name != "depth"} | {"refiner": second}
    made = Hi3DPipeline(replace(hi3d.settings, refiner_depth=False), parts)(picture=picture_of_ball, sampling=FAST)
    assert made.record["refined"] is True
    assert not second.told[0]["concatenated"][:, :, :9].any()
    assert second.told[0]["concatenated"][1, :, 9:].any()


def test_any_autoencoder_and_no_score(hi3d: Hi3DPipeline, picture_of_ball: Picture) -> None:
    """Eight channels of a fourth of the size, as a small autoencoder of our own may have, and no aesthetic score."""
    arguments = {**TINY_VIDEO_UNET, "out_channels": 8, "projection_class_embeddings_input_dim": 512}
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 8), layers_per_block=1, norm_num_groups=4, latent_channels=8,
    )  # fmt: skip
    first, second = (Listening(OrbitVideoUNet(**arguments, in_channels=channels)) for channels in (16, 25))
    parts = {name: part for name, part in hi3d.components.items() if name != "aesthetic"}
    made = Hi3DPipeline(hi3d.settings, parts | {"unet": first, "refiner": second, "vae": vae.eval()})(
        picture=picture_of_ball, sampling=Sampling(steps=1)
    )
    assert made.images.rgba.shape == (16, 128, 128, 4)
    assert made.record["aesthetic"] is None
    assert [call.told[0]["latents"].shape[2:] for call in (first, second)] == [(8, 16, 16), (8, 32, 32)]
    assert [call.told[0]["concatenated"].shape[2:] for call in (first, second)] == [(8, 16, 16), (17, 32, 32)]


@pytest.mark.slow
def test_the_released_framing_is_another_picture(hi3d: Hi3DPipeline, picture_of_ball: Picture) -> None:
    centred = hi3d(picture=picture_of_ball, sampling=FAST)
    released = hi3d(picture=picture_of_ball, sampling=Sampling(steps=2, framing="released"))
    assert (centred.images.rgba != released.images.rgba).any()


def test_what_it_needs_is_named(hi3d: Hi3DPipeline, picture_of_ball: Picture) -> None:
    for name, words in (("depth", "the refiner is told the views' depth"), ("aesthetic", "aesthetic score")):
        with pytest.raises(CheckpointError, match=f"lack {name}: .*{words}"):
            Hi3DPipeline(hi3d.settings, {n: part for n, part in hi3d.components.items() if n != name})
    with pytest.raises(TurntableError, match='with --text "a cup" also --text-to-image MODEL'):
        hi3d(prompt="a cup")
    with pytest.raises(TurntableError, match="--elevation-deg 60: these weights know elevations from -10 to 40"):
        hi3d(picture=picture_of_ball, orbit=OrbitRequest(elevation_deg=60.0))
