"""VideoMV's pipeline with small random weights: what it is told, what it gives, what it refuses."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from engine.errors import CheckpointError, TurntableError
from engine.geometry import Camera
from engine.geometry.frames import to_videomv
from engine.multiview.generation import GenerationProgress
from engine.multiview.networks.image_orbit import ImageOrbitUNet
from engine.multiview.orbits import OrbitRequest
from engine.multiview.pictures import Picture
from engine.multiview.random_weights import random_videomv
from engine.multiview.settings import NEGATIVE_PROMPT, Sampling
from engine.multiview.sizes import TINY_UNET
from engine.multiview.videomv import VideoMVPipeline, with_suffix
from engine.presets import PRESETS
from engine.splats import Gaussians
from tests.engine.splats.reconstructor.stand_ins import blobs

FAST = Sampling(steps=2, refinement="off")


@pytest.fixture(scope="module")
def text() -> VideoMVPipeline:
    return random_videomv(PRESETS["tiny"].settings["text"])


@pytest.fixture(scope="module")
def from_picture() -> VideoMVPipeline:
    return random_videomv(PRESETS["tiny"].settings["picture"])


class Listening(torch.nn.Module):
    """A network that answers zero and remembers what it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.told: list[dict[str, torch.Tensor]] = []

    def forward(self, latents, timestep, **conditions):  # type: ignore[no-untyped-def]
        self.told.append({"timestep": timestep, **conditions})
        return torch.zeros_like(latents)


def test_a_network_that_starts_from_the_picture_knows_one_schedule(from_picture: VideoMVPipeline) -> None:
    unet = ImageOrbitUNet(**TINY_UNET, prior=(0.75, 0.5))
    components = from_picture.components | {"unet": unet}
    VideoMVPipeline(from_picture.settings, components)
    with pytest.raises(CheckpointError, match="on the schedule cosine_zero_snr, the weights' index says linear"):
        VideoMVPipeline(replace(from_picture.settings, schedule="linear_sd"), components)


def listening(pipeline: VideoMVPipeline) -> tuple[VideoMVPipeline, Listening]:
    network = Listening()
    return VideoMVPipeline(pipeline.settings, pipeline.components | {"unet": network}), network


def test_the_same_seed_gives_the_same_bytes(text: VideoMVPipeline) -> None:
    sampling = Sampling(steps=3, refine_first=0.34)
    one, again = (text(prompt="a red lighthouse", sampling=sampling, seed=4) for _ in range(2))
    other = text(prompt="a red lighthouse", sampling=sampling, seed=5)
    np.testing.assert_array_equal(one.images.rgba, again.images.rgba)
    assert (one.images.rgba != other.images.rgba).any()
    assert one.gaussians is not None
    assert again.gaussians is not None
    assert torch.equal(one.gaussians.means, again.gaussians.means)
    assert one.record["refined_steps"] == [1]


def test_an_orbit_comes_out(text: VideoMVPipeline) -> None:
    made = text(
        prompt="a cup", uid="cup", orbit=OrbitRequest(elevation_deg=20.0, start_azimuth_deg=30.0), sampling=FAST
    )
    assert made.images.rgba.shape == (24, 32, 32, 4)
    assert (made.images.uid, made.images.caption, made.images.orbit.name) == ("cup", "a cup", "ring24")
    assert made.images.orbit.azimuth_deg[0] == 30.0
    assert set(made.images.orbit.elevation_deg) == {20.0}


def test_text_is_told_with_its_suffix_and_against_the_negative_prompt(text: VideoMVPipeline) -> None:
    pipeline, network = listening(text)
    made = pipeline(prompt="a cup", sampling=FAST)
    tokens = text.text_encoder.encode([NEGATIVE_PROMPT, "a cup, 3d asset"])
    told = network.told[0]
    torch.testing.assert_close(told["text"], tokens, rtol=0, atol=1e-6)  # unconditional first; other batch, other sums
    cameras = torch.from_numpy(to_videomv(made.images.orbit.T_world_camera)).float()
    torch.testing.assert_close(told["cameras"], torch.stack([cameras, cameras]))
    assert [int(told["timestep"][0]) for told in network.told] == [501, 1]
    assert all(len(told["timestep"]) == 2 for told in network.told)


@pytest.mark.parametrize(
    ("asked", "times"), [(None, [501, 1]), ("leading", [501, 1]), ("trailing", [999, 499]), ("leap", [999, 399])]
)
def test_the_times_of_the_steps_may_be_asked_for(text: VideoMVPipeline, asked, times) -> None:
    pipeline, network = listening(text)
    pipeline(prompt="a cup", sampling=replace(FAST, spacing=asked))
    assert [int(told["timestep"][0]) for told in network.told] == times


@pytest.mark.parametrize(
    ("prompt", "suffix", "said"),
    [
        ("a cup", ", 3d asset", "a cup, 3d asset"),
        ("a cup, 3d asset", ", 3d asset", "a cup, 3d asset"),
        ("a cup", "", "a cup"),
    ],
)
def test_the_suffix_is_said_once(prompt: str, suffix: str, said: str) -> None:
    assert with_suffix(prompt, suffix) == said


def test_a_picture_is_told_in_both_branches_but_its_embedding_in_one(
    from_picture: VideoMVPipeline, picture_of_ball: Picture
) -> None:
    pipeline, network = listening(from_picture)
    pipeline(picture=picture_of_ball, sampling=FAST)
    told = network.told[0]
    empty = from_picture.text_encoder.encode([NEGATIVE_PROMPT, ""])
    torch.testing.assert_close(told["text"], empty, rtol=0, atol=1e-6)
    assert not told["image_embedding"][0].any()
    assert told["image_embedding"][1].any()
    assert torch.equal(told["image_latents"][0], told["image_latents"][1])


def test_another_start_turns_the_orbit_of_a_picture_but_not_what_its_network_is_told(
    from_picture: VideoMVPipeline, picture_of_ball: Picture
) -> None:
    pipeline, network = listening(from_picture)
    front = pipeline(picture=picture_of_ball, sampling=FAST)
    side = pipeline(picture=picture_of_ball, orbit=OrbitRequest(start_azimuth_deg=90.0), sampling=FAST)
    assert (front.images.orbit.azimuth_deg[0], side.images.orbit.azimuth_deg[0]) == (0.0, 90.0)
    assert torch.equal(network.told[0]["cameras"], network.told[2]["cameras"])


def test_the_first_view_is_the_picture_where_the_weights_say_so(
    from_picture: VideoMVPipeline, picture_of_ball: Picture
) -> None:
    keeping = VideoMVPipeline(replace(from_picture.settings, keeps_picture=True), from_picture.components)
    kept, free = (pipeline(picture=picture_of_ball, sampling=FAST).images for pipeline in (keeping, from_picture))
    assert (kept.given_view, free.given_view) == (0, None)
    made, other = kept.rgba, free.rgba
    framed = keeping._framed(picture_of_ball, FAST)
    assert framed is not None
    np.testing.assert_array_equal(made[0], framed.rgba)
    assert (other[0] != framed.rgba).any()
    np.testing.assert_array_equal(made[1:], other[1:])
    opaque = Picture(np.full((40, 40, 4), 255, np.uint8))
    unknown = keeping(picture=opaque, sampling=replace(FAST, framing="kept")).images
    assert not (unknown.rgba[0] == 255).all()  # where its object ends it does not say
    assert unknown.given_view is None


def test_branches_apart_give_the_batched_result(from_picture: VideoMVPipeline, picture_of_ball: Picture) -> None:
    together = from_picture(picture=picture_of_ball, sampling=FAST)
    apart = from_picture(picture=picture_of_ball, sampling=replace(FAST, batched_guidance=False))
    difference = np.abs(together.images.rgba.astype(int) - apart.images.rgba.astype(int))
    assert difference.max() <= 1  # sums in another order


@pytest.mark.parametrize("refinement", ["both", "conditional"])
def test_refinement_changes_the_views(text: VideoMVPipeline, refinement: str) -> None:
    plain = text(prompt="a cup", sampling=Sampling(steps=2, refinement="off"))
    refined = text(prompt="a cup", sampling=Sampling(steps=2, refinement=refinement, refine_first=0.0))
    assert plain.record["refined_steps"] == []
    assert refined.record["refined_steps"] == [0]
    assert (plain.images.rgba != refined.images.rgba).any()


@pytest.mark.parametrize(
    ("asked", "refined"),
    [({}, [1, 2]), ({"refine_every": 2}, [1]), ({"refine_first": 0.5}, [2]), ({"refinement": "off"}, [])],
)
def test_weights_say_when_they_refine_unless_asked_otherwise(text: VideoMVPipeline, asked, refined) -> None:
    own = VideoMVPipeline(replace(text.settings, steps=4, refine_first=0.25, refine_every=1), text.components)
    assert own(prompt="a cup", sampling=Sampling(**asked)).record["refined_steps"] == refined


def test_any_number_of_views(text: VideoMVPipeline) -> None:
    made = text(
        prompt="a cup", orbit=OrbitRequest(views=5, beyond_training=True), sampling=Sampling(steps=2, refine_first=0.0)
    )
    assert len(made.images.rgba) == 5
    with pytest.raises(TurntableError, match="--views 5: these weights know 24 views"):
        text(prompt="a cup", orbit=OrbitRequest(views=5))


@pytest.mark.parametrize("shown", [3, 0])
def test_splats_that_do_not_show_are_left_out(text: VideoMVPipeline, shown: int) -> None:
    class Faint:
        views = 4

        def __call__(self, images: torch.Tensor, cameras: list[Camera]) -> Gaussians:
            opacity = torch.tensor([0.0051] * shown + [0.0049] * (8 - shown))  # either side of the release's threshold
            return replace(blobs(8), opacity_logits=torch.logit(opacity))

    pipeline = VideoMVPipeline(text.settings, text.components)
    pipeline.reconstructor = Faint()  # type: ignore[assignment]
    gaussians = pipeline(prompt="a cup", sampling=FAST).gaussians
    assert (0 if gaussians is None else len(gaussians)) == shown


def test_progress_has_previews_and_cancels(text: VideoMVPipeline) -> None:
    seen: list[GenerationProgress] = []

    def stop(at: GenerationProgress) -> None:
        seen.append(at)
        if at.stage == "denoise" and at.done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        text(prompt="a cup", sampling=Sampling(steps=5, refinement="off"), on_progress=stop)
    assert [(at.stage, at.done, at.steps) for at in seen] == [
        ("encode", 0, 1), ("encode", 1, 1), ("denoise", 1, 5), ("denoise", 2, 5)
    ]  # fmt: skip
    assert seen[-1].preview is not None
    preview = seen[-1].preview()
    assert (preview.shape, preview.dtype) == ((24, 32, 32, 3), np.uint8)


def test_the_wrong_source_is_refused(
    text: VideoMVPipeline, from_picture: VideoMVPipeline, picture_of_ball: Picture
) -> None:
    with pytest.raises(TurntableError, match="make orbits from text: give --text SENTENCE"):
        text(picture=picture_of_ball)
    with pytest.raises(TurntableError, match="make orbits from text"):
        text(prompt="  ")
    with pytest.raises(TurntableError, match="make orbits from pictures: give --image FILE"):
        from_picture(prompt="a cup")


def test_offloaded_networks_give_the_same(from_picture: VideoMVPipeline, picture_of_ball: Picture) -> None:
    # The hooks of accelerate at work; on a CPU as the execution device nothing moves, but all of them are called.
    plain = from_picture(picture=picture_of_ball, sampling=FAST)
    from_picture.enable_model_cpu_offload("cpu")
    try:
        assert all(hasattr(part, "_hf_hook") for part in from_picture.modules.values())
        np.testing.assert_array_equal(
            from_picture(picture=picture_of_ball, sampling=FAST).images.rgba, plain.images.rgba
        )
    finally:
        from_picture.remove_offload()
    assert not any(hasattr(part, "_hf_hook") for part in from_picture.modules.values())
