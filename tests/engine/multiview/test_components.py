"""Pipelines as folders: saved, loaded, refused, moved."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.checkpoints.layout import INDEX
from engine.errors import CheckpointError, MissingDependencyError
from engine.multiview.hi3d import Hi3DPipeline
from engine.multiview.random_weights import random_hi3d, random_videomv
from engine.multiview.videomv import VideoMVPipeline
from engine.presets import PRESETS

TEXT, PICTURE = PRESETS["tiny"].settings["text"], PRESETS["tiny"].settings["picture"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights") / "videomv"
    random_videomv(PICTURE).save_pretrained(folder)
    return folder


@pytest.fixture
def own(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "own"))


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_what_is_saved_is_loaded_again(saved: Path) -> None:
    made, loaded = random_videomv(PICTURE), VideoMVPipeline.from_pretrained(saved)
    assert loaded.settings == PICTURE
    assert loaded.components.keys() == made.components.keys()
    assert all(same(part, loaded.modules[name]) for name, part in made.modules.items())
    texts = ["a red lighthouse", "a cup"]
    assert torch.equal(made.text_encoder.encode(texts), loaded.text_encoder.encode(texts))


def test_settings_that_are_no_more_do_not_keep_an_older_folder_from_loading(own: Path) -> None:
    index = json.loads((own / INDEX).read_text())
    index["settings"]["reconstructor_views"] = 4  # until it was asked of the reconstructor's own config
    (own / INDEX).write_text(json.dumps(index))
    assert VideoMVPipeline.from_pretrained(own).settings == PICTURE


def test_hi3d_is_loaded_again(tmp_path: Path) -> None:
    made = random_hi3d(PRESETS["tiny-hi3d"].settings["picture"])
    made.save_pretrained(tmp_path)
    loaded = Hi3DPipeline.from_pretrained(str(tmp_path), dtype=torch.bfloat16)
    assert loaded.settings == made.settings
    assert loaded.dtype == torch.bfloat16
    assert loaded.components.keys() == made.components.keys()


def test_random_weights_are_the_same_each_time_and_leave_torch_alone() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    one, two, other = random_videomv(TEXT), random_videomv(TEXT), random_videomv(TEXT, seed=1)
    assert all(same(part, two.modules[name]) for name, part in one.modules.items())
    assert not same(one.unet, other.unet)
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_aesthetic_predictor_stays_in_float32() -> None:
    # Hi3D embeds a hundred times the score as an angle: half precision would turn it by radians.
    pipeline = random_hi3d(PRESETS["tiny-hi3d"].settings["picture"])
    before = [parameter.clone() for parameter in pipeline.components["aesthetic"].mlp.parameters()]
    pipeline.to(dtype=torch.bfloat16)
    aesthetic = pipeline.components["aesthetic"]
    assert all(torch.equal(one, other) for one, other in zip(before, aesthetic.mlp.parameters(), strict=True))
    assert {parameter.dtype for parameter in aesthetic.clip.parameters()} == {torch.bfloat16}
    others = {p.dtype for name, part in pipeline.modules.items() if name != "aesthetic" for p in part.parameters()}
    assert others == {torch.bfloat16}


def refusal(folder: Path, kind: type[VideoMVPipeline] | type[Hi3DPipeline] = VideoMVPipeline) -> str:
    with pytest.raises(CheckpointError) as error:
        kind.from_pretrained(folder)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_another_systems_weights_are_refused(saved: Path) -> None:
    assert refusal(saved, Hi3DPipeline) == f"{saved}: holds weights of videomv, expected hi3d"


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path).endswith("so it is no folder of Turntable's weights; make one with `turntable convert`")
    (tmp_path / INDEX).write_text('{"_class_name": "StableVideoDiffusionPipeline"}')
    assert "found a diffusers pipeline (StableVideoDiffusionPipeline): make ours of it with" in refusal(tmp_path)
    (tmp_path / INDEX).write_text("{")
    assert "is not JSON" in refusal(tmp_path)


def test_an_index_cannot_name_code_to_import(own: Path) -> None:
    index = json.loads((own / INDEX).read_text())
    index["components"]["unet"] = "os.system"
    (own / INDEX).write_text(json.dumps(index))
    assert "names the class os.system, expected one of AestheticScorer, AutoencoderKL" in refusal(own)


def test_settings_of_a_later_version_are_refused(own: Path) -> None:
    index = json.loads((own / INDEX).read_text())
    index["settings"]["colour"] = "blue"
    (own / INDEX).write_text(json.dumps(index))
    assert "its index has the setting colour, unknown to VideoMVSettings" in refusal(own)


def test_a_missing_folder_and_a_truncated_file_are_named(own: Path) -> None:
    weights = next((own / "vae").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:1000])
    assert f"{own / 'vae'}: does not load as AutoencoderKL" in refusal(own)
    shutil.rmtree(own / "vae")
    assert f"names vae, but the folder {own / 'vae'} is not there" in refusal(own)


@pytest.mark.parametrize("component", ["vae", "reconstructor", "unet", "text_encoder", "image_encoder"])
def test_a_missing_tensor_is_named(own: Path, component: str) -> None:
    path = next((own / component).glob("*.safetensors"))
    tensors = load_file(path)
    gone = sorted(tensors)[5]
    save_file({name: tensor for name, tensor in tensors.items() if name != gone}, path, {"format": "pt"})
    assert gone in refusal(own)


def test_what_a_system_needs_is_named() -> None:
    made = random_videomv(PICTURE)
    without = {name: part for name, part in made.components.items() if name != "image_encoder"}
    with pytest.raises(CheckpointError, match="lack image_encoder: picture-to-orbit weights need one; add what is"):
        VideoMVPipeline(PICTURE, without)
    with pytest.raises(CheckpointError, match="lack unet: videomv is made of unet, vae, text_encoder"):
        VideoMVPipeline(PICTURE, {name: part for name, part in made.components.items() if name != "unet"})
    with pytest.raises(CheckpointError, match="hold refiner, which videomv does not know"):
        VideoMVPipeline(PICTURE, made.components | {"refiner": made.unet})


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_where_there_is_none() -> None:
    with pytest.raises(MissingDependencyError, match="torch sees no CUDA device here; take cpu"):
        random_videomv(TEXT).to("cuda")


COMPILED = """
import sys, numpy as np, torch
from engine.multiview.pictures import Picture
from engine.multiview.random_weights import random_hi3d, random_videomv
from engine.multiview.settings import Sampling
from engine.presets import PRESETS
torch.set_num_threads(2)
name, source = sys.argv[1:]
settings = PRESETS[name].settings[source]
pipeline = random_hi3d(settings) if name == "tiny-hi3d" else random_videomv(settings)
v, u = np.mgrid[:64, :64]
ball = Picture(np.dstack([4 * u, 4 * v, 0 * u + 90, 255 * ((u - 32) ** 2 + (v - 32) ** 2 < 400)]).astype(np.uint8))
asked = {"prompt": "a cup"} if source == "text" else {"picture": ball}
sampling = Sampling(steps=2, refinement="off")
plain = pipeline(sampling=sampling, **asked).images.rgba.astype(int)
pipeline.compile(backend="eager")  # one graph without breaks, as inductor wants it; needs no compiler
compiled = pipeline(sampling=sampling, **asked).images.rgba.astype(int)
print(np.abs(plain - compiled).max())
"""


@pytest.mark.slow
@pytest.mark.parametrize(("preset", "source"), [("tiny", "picture"), ("tiny-hi3d", "picture")])
def test_compiled_networks_give_the_same(preset: str, source: str) -> None:
    # In a process of its own: what checks shapes in tests cannot be compiled.
    done = subprocess.run(
        [sys.executable, "-c", COMPILED, preset, source], capture_output=True, text=True, check=False,
        cwd=Path(__file__).parents[3],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) <= 1  # of 255: sums in another order


def test_compiling_and_offloading_exclude_each_other() -> None:
    pipeline = random_videomv(TEXT)
    pipeline.enable_model_cpu_offload("cpu")
    with pytest.raises(ValueError, match="compile and offload exclude each other"):
        pipeline.compile()
