"""rembg as a stand-in: what is asked of it, and what is said when it or its weights are not here."""

import sys
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.errors import MissingDependencyError
from engine.multiview.matting import WEIGHTS_URL, fit_background, weights_path
from engine.multiview.pictures import Picture, ensure_alpha

WHY = (
    "room.jpg has no transparency and its background is not of one colour ({}% of its border, 75% expected), so rembg "
    "must find the object"
)


@pytest.fixture
def room() -> Picture:
    """A red square in front of a checker of two colours."""
    v, u = np.mgrid[:200, :200] // 10 % 2
    rgba = np.full((200, 200, 4), 255, np.uint8)
    rgba[..., :3] = np.where((u + v)[..., None] % 2, (40, 90, 160), (210, 200, 60))
    rgba[30:180, 40:170, :3] = (230, 10, 10)
    return Picture(rgba, "room.jpg")


def share(picture: Picture) -> str:
    return f"{fit_background(picture.rgba[..., :3])[1]:.0%}".rstrip("%")


def stand_in(monkeypatch, new_session) -> types.ModuleType:
    module = types.ModuleType("rembg")
    module.new_session = new_session

    def remove(image: Image.Image, *, session: str, only_mask: bool) -> Image.Image:
        assert (session, only_mask, image.mode) == ("a session", True, "RGB")
        mask = np.zeros((image.height, image.width), np.uint8)
        mask[28:182, 38:172] = 120
        mask[30:180, 40:170] = 255
        return Image.fromarray(mask)

    module.remove = remove
    monkeypatch.setitem(sys.modules, "rembg", module)
    return module


def test_a_busy_background_goes_to_rembg_and_its_colour_leaves_the_edge(monkeypatch, room):
    asked = []
    stand_in(monkeypatch, lambda name: asked.append(name) or "a session")
    found = ensure_alpha(room)
    assert asked == ["u2net"]
    assert found.notes == ("background taken away by rembg (u2net)",)
    assert found.rgba[29, 100].tolist() == [230, 10, 10, 120]  # outside the square: the nearest sure colour
    assert found.rgba[5, 5].tolist() == [0, 0, 0, 0]


def test_rembg_may_be_asked_for_although_the_background_is_even(monkeypatch):
    stand_in(monkeypatch, lambda name: "a session")
    plain = Picture(np.full((200, 200, 4), 255, np.uint8), "plain.png")
    assert ensure_alpha(plain, method="rembg").rgba[100, 100, 3] == 255


def test_without_rembg_the_error_says_how_to_get_it(monkeypatch, room):
    monkeypatch.setitem(sys.modules, "rembg", None)  # import raises ImportError
    with pytest.raises(MissingDependencyError) as caught:
        ensure_alpha(room)
    assert str(caught.value) == (
        WHY.format(share(room)) + " and is not installed; pip install -c constraints.txt -e '.[matting]', or use a "
        "picture with a transparent background"
    )


def test_without_weights_the_error_names_the_file_and_where_to_put_it(monkeypatch, room, tmp_path):
    def offline(name: str) -> None:
        raise ConnectionError("HTTPSConnectionPool(host='github.com', port=443): Max retries exceeded\nwith url: ...")

    stand_in(monkeypatch, offline)
    monkeypatch.setenv("U2NET_HOME", str(tmp_path))
    with pytest.raises(MissingDependencyError) as caught:
        ensure_alpha(room, method="rembg")
    assert str(caught.value) == (
        f"rembg was asked for room.jpg, so rembg must find the object, but its weights {tmp_path / 'u2net.onnx'} are "
        f"missing or broken and could not be fetched (ConnectionError); put {WEIGHTS_URL} there, or use a picture with "
        "a transparent background"
    )


def test_where_rembg_keeps_its_weights(monkeypatch):
    monkeypatch.delenv("U2NET_HOME", raising=False)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    assert weights_path() == Path.home() / ".u2net" / "u2net.onnx"
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert weights_path() == Path("/data/.u2net/u2net.onnx")
