"""Files as phones, cameras and the web make them: what is read, and the exact text of every refusal."""

import contextlib
import io
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from engine.errors import PictureError
from engine.multiview import picture_file
from engine.multiview.picture_file import MAX_SIDE_PX, decode_file
from engine.multiview.pictures import read_picture

KINDS = "PNG, JPEG, WebP, TIFF, BMP, AVIF or HEIC"


def gradient(width: int = 40, height: int = 30) -> np.ndarray:
    """A picture whose every corner is another colour: turned or mirrored it would differ."""
    v, u = np.mgrid[:height, :width]
    return np.dstack([255 * u / (width - 1), 255 * v / (height - 1), 60 + 0 * u]).astype(np.uint8)


def refusal(path: Path) -> str:
    with pytest.raises(PictureError) as caught:
        read_picture(path)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("suffix", ["png", "webp", "tiff", "bmp", "gif", "jpg", "avif"])
def test_formats_are_read(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    colours = gradient()
    options = {"webp": {"lossless": True}, "jpg": {"quality": 98, "subsampling": 0}, "avif": {"quality": 98}}
    Image.fromarray(colours).save(path, **options.get(suffix, {}))
    picture = read_picture(path)
    assert (picture.name, picture.notes, picture.width, picture.height) == (str(path), (), 40, 30)
    assert (picture.rgba[..., 3] == 255).all()
    tolerance = {"jpg": 4, "avif": 6, "gif": 40}.get(suffix, 0)  # lossy codecs; GIF has 256 colours
    assert np.abs(picture.rgba[..., :3].astype(int) - colours).max() <= tolerance


def test_straight_alpha_is_kept_exactly(tmp_path, rng):
    rgba = rng.integers(0, 256, (30, 30, 4), dtype=np.uint8)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    assert np.array_equal(read_picture(str(tmp_path / "a.png")).rgba, rgba)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    upright = Image.fromarray(gradient())
    turn = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip  # how a camera held so stores it: the inverse of what a viewer does
    stored = upright.transpose(turn[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_picture(tmp_path / "a.png").rgba[..., :3], gradient())


def test_16_bit_greys_keep_black_and_white(tmp_path):
    values = np.tile(np.linspace(0, 65535, 256).round().astype(np.uint16), (24, 1))
    Image.fromarray(values).save(tmp_path / "a.png")
    Image.fromarray(values).save(tmp_path / "a.tif")
    for name in ("a.png", "a.tif"):
        assert np.array_equal(read_picture(tmp_path / name).rgba[0, :, 1], np.arange(256))


def test_16_bit_colours_are_read(tmp_path):
    import struct
    import zlib

    rows = b"".join(b"\0" + struct.pack(">3H", 65535, 32896, 0) * 24 for _ in range(24))
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", 24, 24, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    data = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    assert read_picture(tmp_path / "a.png").rgba[3, 3].tolist() == [255, 128, 0, 255]


def test_palettes_greys_and_bits(tmp_path):
    colours = np.full((24, 24, 3), (200, 30, 60), np.uint8)
    palette = Image.fromarray(colours).quantize(8)
    palette.save(tmp_path / "p.png", transparency=palette.getpixel((0, 0)))
    assert (read_picture(tmp_path / "p.png").rgba[..., 3] == 0).all()
    Image.fromarray(np.dstack([colours[..., 0], colours[..., 1]]), "LA").save(tmp_path / "la.png")
    assert read_picture(tmp_path / "la.png").rgba[0, 0].tolist() == [200, 200, 200, 30]
    Image.fromarray(np.eye(24) > 0).save(tmp_path / "1.png")
    assert read_picture(tmp_path / "1.png").rgba[5, 4:6].tolist() == [[0, 0, 0, 255], [255, 255, 255, 255]]
    values = np.full((24, 24), 1000, np.uint16)
    values[0] = 7
    Image.fromarray(values).save(tmp_path / "g.png", transparency=7)
    assert read_picture(tmp_path / "g.png").rgba[:2, 0, 3].tolist() == [0, 255]


def test_an_embedded_profile_is_converted_to_srgb(tmp_path):
    # L*a*b* 53.24, 80.09, 67.20 is sRGB's pure red by definition (D65); D50 profiles land within two levels of it.
    lab = np.broadcast_to(np.array([53.24 * 2.55, 80.09, 67.20]).round().astype(np.int16).astype(np.uint8), (24, 24, 3))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    swapped = swapped_primaries(profile.tobytes())
    Image.fromarray(np.full((24, 24, 3), (255, 0, 0), np.uint8)).save(tmp_path / "swapped.png", icc_profile=swapped)
    red = read_picture(tmp_path / "swapped.png").rgba[0, 0]
    # The profile says that its first channel is sRGB's green.
    assert np.abs(red.astype(int) - [0, 255, 0, 255]).max() <= 2, red
    Image.frombytes("LAB", (24, 24), np.ascontiguousarray(lab).tobytes()).save(tmp_path / "lab.tif")
    assert read_picture(tmp_path / "lab.tif").rgba[0, 0, 0] > 245


def swapped_primaries(icc: bytes) -> bytes:
    """An sRGB profile with the tags of its red and green primaries exchanged."""
    return icc.replace(b"rXYZ", b"tmp1").replace(b"gXYZ", b"rXYZ").replace(b"tmp1", b"gXYZ")


def test_a_profile_leaves_alpha_alone_and_a_broken_one_is_ignored(tmp_path, rng, caplog):
    rgba = rng.integers(0, 256, (24, 24, 4), dtype=np.uint8)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(rgba).save(tmp_path / "a.png", icc_profile=srgb)
    read = read_picture(tmp_path / "a.png").rgba
    assert np.array_equal(read[..., 3], rgba[..., 3])
    assert np.abs(read.astype(int) - rgba).max() <= 1  # sRGB to sRGB through 8-bit tables
    Image.fromarray(rgba).save(tmp_path / "b.png", icc_profile=b"not a profile")
    assert np.array_equal(read_picture(tmp_path / "b.png").rgba, rgba)
    assert "its colours are taken as sRGB" in caplog.text


def test_cmyk_is_read(tmp_path):
    ink = np.zeros((24, 24, 4), np.uint8)
    ink[..., 1:3] = 255  # magenta and yellow
    Image.fromarray(ink, "CMYK").save(tmp_path / "a.tif")
    assert read_picture(tmp_path / "a.tif").rgba[0, 0].tolist() == [255, 0, 0, 255]


def test_large_pictures_are_reduced_and_say_so(tmp_path):
    path = tmp_path / "a.jpg"
    Image.fromarray(gradient(5000, 100)).save(path, quality=95)
    picture = read_picture(path)
    assert (picture.width, picture.height) == (MAX_SIDE_PX, 41)
    assert picture.notes == ("reduced from 5000 x 100 pixels to a longest side of 2048",)
    expected = 255 * (np.arange(MAX_SIDE_PX) + 0.5) / MAX_SIDE_PX
    assert np.abs(picture.rgba[20, :, 0] - expected).max() < 4  # JPEG, decoded at half its size


def test_a_phones_jpeg_with_a_preview_is_one_picture(tmp_path):
    first, second = Image.fromarray(gradient()), Image.fromarray(gradient()[::-1].copy())
    first.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[second], quality=95)
    assert np.abs(read_picture(tmp_path / "a.jpg").rgba[..., :3].astype(int) - gradient()).max() < 12  # JPEG


# ---------------------------------------------------------------- refusals, word for word
def test_missing_folder_empty(tmp_path):
    missing, empty = tmp_path / "no.png", tmp_path / "empty.png"
    empty.touch()
    assert refusal(missing) == f"{missing} does not exist; expected a picture ({KINDS}); check the path"
    assert refusal(tmp_path) == f"{tmp_path} is a folder; expected a picture ({KINDS}); name one file in it"
    assert refusal(empty) == f"{empty} is empty (0 bytes); expected a picture ({KINDS}); fetch or save it again"


def test_no_picture_drawing_raw_heic(tmp_path):
    text, svg, raw, heic = (tmp_path / name for name in ("a.txt", "a.xml", "a.NEF", "a.heic"))
    text.write_text("hello")
    svg.write_text("<?xml version='1.0'?>\n<SVG xmlns='http://www.w3.org/2000/svg'/>")
    raw.write_bytes(b"II*\0")
    heic.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    assert refusal(text) == f"{text} is not a picture that can be read; expected {KINDS}; save it as PNG or JPEG"
    assert refusal(svg) == f"{svg} is an SVG drawing; expected pixels ({KINDS}); export it as PNG"
    assert refusal(raw) == f"{raw} is a camera's raw file; expected {KINDS}; develop it and save it as PNG or JPEG"
    if "HEIF" not in Image.OPEN:
        expected = f"{heic} is HEIC, which needs pillow-heif here; pip install pillow-heif, or save it as PNG or JPEG"
        assert refusal(heic) == expected


@pytest.mark.parametrize(
    ("suffix", "what"), [("gif", "frames"), ("webp", "frames"), ("png", "frames"), ("tif", "pages")]
)
def test_animations_are_refused_with_a_command_that_takes_a_frame(tmp_path, suffix, what):
    path = tmp_path / f"it's moving.{suffix}"
    frames = [Image.fromarray(np.roll(gradient(), 5 * k, axis=1)) for k in range(3)]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    text = refusal(path)
    head, command = text.split("take the first with: ")
    assert head == f"{path} has 3 {what}; expected one still picture; "
    program, *arguments = shlex.split(command)
    assert program == "python"
    subprocess.run([sys.executable, *arguments], cwd=tmp_path, check=True)
    assert read_picture(tmp_path / "frame.png").width == 40


def test_too_small_and_too_large(tmp_path, monkeypatch):
    small, large = tmp_path / "small.png", tmp_path / "large.png"
    Image.fromarray(gradient(200, 23)).save(small)
    assert refusal(small) == f"{small} is 200 x 23 pixels; expected at least 24 a side; use a larger picture"
    Image.new("1", (12000, 11000)).save(large)
    assert refusal(large) == (
        f"{large} is 12000 x 11000, 132 million pixels; expected at most 120 million; make it smaller: a side of "
        "2048 px is all that is used"
    )
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # Pillow's own refusal comes first for 180 million and more
    assert refusal(large) == (
        f"{large} has more than 120 million pixels; make it smaller: a side of 2048 px is all that is used"
    )


def test_floats_are_refused(tmp_path):
    path = tmp_path / "a.tif"
    Image.fromarray(np.zeros((24, 24), np.float32)).save(path)
    expected = f"{path} has F pixels without a known white; expected 8 or 16 bits; save it as PNG or JPEG"
    assert refusal(path) == expected


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif", "bmp", "gif"])
def test_truncated_files_are_refused(tmp_path, suffix, rng):
    buffer, path = io.BytesIO(), tmp_path / f"a.{suffix}"
    noise = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, {"jpg": "JPEG", "tif": "TIFF"}.get(suffix, suffix.upper()))
    path.write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    text = refusal(path)
    assert text.startswith((f"{path} is truncated or broken (", f"{path} is not a picture that can be read; "))
    assert text.endswith(("; fetch or save it again", "; save it as PNG or JPEG"))


def test_damage_never_leaves_as_another_error(tmp_path, rng):
    """Bytes changed at random: a picture, or a PictureError."""
    for kind in ("PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP", "AVIF"):
        buffer, path = io.BytesIO(), tmp_path / f"a.{kind.lower()}"
        Image.fromarray(gradient()).save(buffer, kind, **({} if kind != "TIFF" else {"compression": "tiff_lzw"}))
        for _ in range(25):
            data = np.frombuffer(buffer.getvalue(), np.uint8).copy()
            data[rng.integers(0, len(data), 8)] = rng.integers(0, 256, 8)
            path.write_bytes(data.tobytes())
            with contextlib.suppress(PictureError):
                assert decode_file(path).rgba.shape[-1] == 4


def test_unreadable_files_say_so(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    Image.fromarray(gradient()).save(path)

    def deny(self, *args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(picture_file.Path, "open", deny)
    assert refusal(path) == f"{path} cannot be read: Permission denied; check its permissions"


def test_a_phones_heic_is_read(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif")
    v, u = np.mgrid[:100, :140]
    rgb = np.dstack([u, v, 0 * u + 50]).astype(np.uint8)
    path = tmp_path / "photo.heic"
    pillow_heif.from_pillow(Image.fromarray(rgb)).save(path)
    decoded = decode_file(path)
    assert decoded.rgba.shape == (100, 140, 4)
    assert np.abs(decoded.rgba[..., :3].astype(int) - rgb).mean() < 2  # HEVC at its default quality
