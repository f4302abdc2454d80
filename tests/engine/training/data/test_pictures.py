"""2D pictures as LAION's tars hold them: filtered, cropped, with their caption, without cameras."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.errors import TrainingError
from engine.training.data.batches import loader
from engine.training.data.pictures import PictureMembers, look, picture_clip
from engine.training.data.sources import find_shards
from engine.training.data.stream import RawSample, read_shard
from engine.training.data.tally import BadSample, PassedOver
from engine.training.plans import DataPlan
from engine.training.types import Clip, Position
from tests.engine.training.small_orbits import picture_files, small_shards, write_tar

PLAN = DataPlan(orbit="*", views=6, size_px=16, caption="object", caption_suffix=", 3d asset", picture_share=0.25)


def raw(files: list[tuple[str, bytes]]) -> RawSample:
    members = PictureMembers()
    return RawSample(members.split(files[0][0])[0], "a.tar", {members.split(name)[1]: data for name, data in files})


def clip_of(sample: RawSample) -> Clip:
    look(sample, PLAN)
    return picture_clip(sample, Position(0, 0, 0), plan=PLAN, seed=0)


def test_a_tar_of_img2dataset(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", [file for n in range(3) for file in picture_files(n)])
    samples = list(read_shard(str(tmp_path / "a.tar"), PictureMembers()))
    assert [sample.name for sample in samples] == ["000000000", "000000001", "000000002"]
    clip = clip_of(samples[1])
    assert (clip.uid, clip.caption, clip.orbit, clip.rgba.shape) == ("000000001", "picture 1", None, (1, 16, 16, 4))
    assert clip.pixels_key != clip_of(samples[2]).pixels_key


@pytest.mark.parametrize("kind", ["jpg", "png", "webp"])
@pytest.mark.parametrize(("width", "height"), [(40, 24), (24, 40), (16, 16), (33, 17)])
def test_the_middle_of_the_longer_side_is_kept(kind: str, width: int, height: int) -> None:
    rgba = clip_of(raw(picture_files(0, kind=kind, width=width, height=height))).rgba[0]
    assert (rgba[..., 3] == 255).all()
    # left half red, right half blue; JPEG halves the resolution of colours
    assert (rgba[:, :6, 0] > 180).all()
    assert (rgba[:, :6, 2] < 70).all()
    assert (rgba[:, -6:, 2] > 180).all()


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"aesthetic": 3.9}, "aesthetic"),
        ({"AESTHETIC_SCORE": 3.0}, "aesthetic"),
        ({"pwatermark": 0.31}, "watermark"),
        ({"punsafe": 0.21}, "unsafe"),
        ({"width": 80, "height": 24}, "aspect"),
        ({"width": 40, "height": 15}, "too small"),
    ],
)
def test_filters(facts: dict, reason: str) -> None:
    with pytest.raises(PassedOver, match=f"^{reason}$"):
        look(raw(picture_files(0, **facts)), PLAN)


def test_at_the_limits_pictures_pass() -> None:
    look(raw(picture_files(0, aesthetic=4.0, pwatermark=0.3, punsafe=0.2, width=72, height=24)), PLAN)
    look(raw(picture_files(0, aesthetic=None, pwatermark=float("nan"))), PLAN)  # no score was computed


def test_captions_of_json_where_there_is_no_text() -> None:
    files = picture_files(7)
    assert clip_of(raw(files[:2])).caption == "picture 7"
    with pytest.raises(BadSample, match="has no caption"):
        look(raw(files[:1]), PLAN)


def test_turned_and_transparent_pictures() -> None:
    turned = Image.fromarray(np.repeat(np.array([[[250, 0, 0]], [[0, 0, 250]]], np.uint8).repeat(16, 0), 32, 1))
    exif = Image.Exif()
    exif[0x0112] = 8  # stored turned: a viewer turns it left
    buffer = io.BytesIO()
    turned.save(buffer, "PNG", exif=exif)
    rgba = clip_of(raw([("1.png", buffer.getvalue()), ("1.txt", b"a")])).rgba[0]
    assert (rgba[:, 0, 0] > 200).all()
    assert (rgba[:, -1, 2] > 200).all()
    buffer = io.BytesIO()
    Image.new("RGBA", (20, 20), (0, 0, 0, 0)).save(buffer, "PNG")
    assert (clip_of(raw([("1.png", buffer.getvalue()), ("1.txt", b"a")])).rgba == 255).all()


@pytest.mark.parametrize("broken", [b"", b"no picture", picture_files(0)[0][1][:200]])
def test_broken_pictures_are_bad_samples(broken: bytes) -> None:
    with pytest.raises(BadSample, match=r"1 \(its picture cannot be decoded"):
        clip_of(raw([("1.jpg", broken), ("1.txt", b"a")]))


def test_a_share_of_the_batches_is_of_pictures_without_cameras(tmp_path: Path) -> None:
    write_tar(tmp_path / "pictures.tar", [f for n in range(9) for f in picture_files(n, aesthetic=4.5 if n else 1.0)])
    orbits = find_shards([str(path) for path in small_shards(tmp_path, [5])])
    made = loader(PLAN, orbits, pictures=find_shards([f"{tmp_path}/pictures.tar"]), batch_size=2, seed=0,
                  pictures_batch_size=4)  # fmt: skip
    batches = [batch for batch, _ in zip(made, range(40), strict=False)]
    kinds = [batch.orbits is None for batch in batches]
    assert [sum(kinds[block : block + 4]) for block in range(0, 40, 4)] == [1] * 10
    for batch in batches:
        shape = (4, 1, 3, 16, 16) if batch.orbits is None else (2, 6, 3, 16, 16)
        assert tuple(batch.pixels.shape) == shape
        assert all(("picture" in caption) == (batch.orbits is None) for caption in batch.captions)
        assert all(caption.endswith(", 3d asset") == (batch.orbits is not None) for caption in batch.captions)
        assert all((position.reader == 1) == (batch.orbits is None) for position in batch.positions)
    assert "000000000" not in {uid for batch in batches for uid in batch.uids}
    assert set(made.counts.passed_over) == {"aesthetic"}


def test_errors(tmp_path: Path) -> None:
    orbits = find_shards([str(path) for path in small_shards(tmp_path, [2])])
    with pytest.raises(TrainingError, match="learns from 2D pictures in 25% of its steps: pass --pictures"):
        loader(PLAN, orbits, batch_size=1, seed=0)
    write_tar(tmp_path / "dull.tar", [file for n in range(3) for file in picture_files(n, aesthetic=1)])
    dull = find_shards([f"{tmp_path}/dull.tar"])
    with pytest.raises(TrainingError, match=r"dull.tar: filters let none through \(\d+ aesthetic\); name other shards"):
        list(zip(loader(PLAN, orbits, pictures=dull, batch_size=1, seed=0), range(9), strict=False))
    with pytest.raises(TrainingError, match=r"shards hold no picture; expected KEY.jpg"):
        list(zip(loader(PLAN, orbits, pictures=orbits, batch_size=1, seed=0), range(9), strict=False))
