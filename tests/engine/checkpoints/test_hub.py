"""Weights from the hub and from plain addresses, against a server on this machine: resumed, checked, told in one line."""

import errno
import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.checkpoints.download import Retries, download
from engine.checkpoints.hub import HubId, fetch, parse_hub_id
from engine.checkpoints.releases import RELEASES
from engine.errors import CheckpointError
from tests.engine.checkpoints.hub_server import HubServer

QUICK = Retries(count=3, pause_s=0.0)
LARGE = "unet/model.safetensors"


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The hub's client waits between attempts, and takes 10 MB at a time; here it need not."""
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 10_000)
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _seconds: None)
    return iter(())


def get(hub: HubServer, cache: Path, what: str = "owner/name", **settings: Any) -> Path:
    return fetch(what, cache=cache, endpoint=hub.url, retries=QUICK, **settings)


def test_hub_ids() -> None:
    assert parse_hub_id("owner/name") == HubId("owner/name", None, "")
    assert parse_hub_id("owner/na.me@v1.0:a/b.pth") == HubId("owner/na.me", "v1.0", "a/b.pth")
    assert parse_hub_id("owner/name:unet/") == HubId("owner/name", None, "unet")
    assert parse_hub_id("owner/name@refs/pr/1:ünï code #1?.pth") == HubId("owner/name", "refs/pr/1", "ünï code #1?.pth")
    odd = (
        "name",
        "a/b/c",
        "/a/b",
        "./a/b",
        "../b",
        "a/..",
        "-a/b",
        "a/b.",
        "a--b/c",
        "ümlaut/x",
        "a/b@../../x",
        "a/b c",
    )
    assert [parse_hub_id(text) for text in odd] == [None] * len(odd)


def test_every_official_source_is_an_id_or_an_address() -> None:
    for release in RELEASES.values():
        for source in release.sources:
            assert source.startswith("https://") or parse_hub_id(source) is not None, source


def test_a_path_is_itself(tmp_path: Path) -> None:
    file = tmp_path / "w.pth"
    file.touch()
    assert fetch(file) == file
    assert fetch(str(tmp_path)) == tmp_path
    with pytest.raises(CheckpointError, match=r"no such file or folder, and no hub id \(owner/name"):
        fetch(tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="a/b/c: no such file or folder"):
        fetch("a/b/c")


def test_a_repository_is_downloaded_once(hub: HubServer, tmp_path: Path) -> None:
    folder = get(hub, tmp_path)
    for name, data in hub.files.items():
        assert (folder / name).read_bytes() == data
    hub.requests.clear()
    assert get(hub, tmp_path) == folder
    assert not [request for request in hub.requests if request[0] == "GET" and "/resolve/" in request[1]]


def test_parts_of_a_repository(hub: HubServer, tmp_path: Path) -> None:
    file = get(hub, tmp_path / "1", f"owner/name:{LARGE}")
    assert file.read_bytes() == hub.files[LARGE]
    assert not (file.parents[1] / "README.md").exists()
    folder = get(hub, tmp_path / "2", "owner/name@main:unet")
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    folder = get(hub, tmp_path / "3", patterns=["*.md"])
    assert [path.name for path in folder.iterdir()] == ["README.md"]
    with pytest.raises(CheckpointError, match=r"owner/name: holds no vae; it holds README.md, unet/config.json"):
        get(hub, tmp_path / "4", "owner/name:vae")


def test_a_broken_connection_is_resumed(hub: HubServer, tmp_path: Path) -> None:
    hub.breaks[LARGE] = 100_000
    seen: list[tuple[int, int | None]] = []
    file = get(hub, tmp_path, f"owner/name:{LARGE}", on_bytes=lambda done, total: seen.append((done, total)))
    assert file.read_bytes() == hub.files[LARGE]
    first, second = hub.ranges(LARGE)
    assert first == ""
    assert 0 < int(second.removeprefix("bytes=").rstrip("-")) <= 100_000
    assert seen[-1] == (300_000, 300_000)


def test_a_damaged_file_is_caught_and_removed(hub: HubServer, tmp_path: Path) -> None:
    hub.corrupt.add(LARGE)
    with pytest.raises(CheckpointError, match=rf"owner/name:{LARGE}: has SHA-256 \w+, expected \w+: it was damaged"):
        get(hub, tmp_path)
    hub.corrupt.clear()
    assert (get(hub, tmp_path) / LARGE).read_bytes() == hub.files[LARGE]


def test_damage_on_this_disk_is_caught(hub: HubServer, tmp_path: Path) -> None:
    file = get(hub, tmp_path) / LARGE
    data = bytearray(hub.files[LARGE])
    data[7] ^= 1
    file.resolve().write_bytes(data)
    with pytest.raises(CheckpointError, match="it was damaged on its way or on this disk and is removed"):
        get(hub, tmp_path, offline=True)


def test_offline(hub: HubServer, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"was not downloaded before and the hub is not to be asked \(offline\)"):
        get(hub, tmp_path, offline=True)
    folder = get(hub, tmp_path)
    hub.requests.clear()
    assert get(hub, tmp_path, offline=True) == folder
    assert get(hub, tmp_path, f"owner/name:{LARGE}", offline=True) == folder / LARGE
    assert not hub.requests


def test_offline_half_a_repository_is_not_a_repository(hub: HubServer, tmp_path: Path) -> None:
    get(hub, tmp_path, "owner/name:unet/config.json")
    assert get(hub, tmp_path, "owner/name:unet/config.json", offline=True).name == "config.json"
    for what in ("owner/name", "owner/name:unet"):
        with pytest.raises(CheckpointError, match="was not downloaded before"):
            get(hub, tmp_path, what, offline=True)


def test_no_network(hub: HubServer, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = get(hub, tmp_path / "warm")
    hub.url = "http://127.0.0.1:9"  # discard: nobody listens
    assert get(hub, tmp_path / "warm") == folder
    assert "cannot be reached; taking what was downloaded before" in caplog.text
    with pytest.raises(CheckpointError, match=r"cannot be reached .*HF_ENDPOINT to a mirror") as caught:
        get(hub, tmp_path / "cold")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (401, "", r"needs a login \(`hf auth login` or HF_TOKEN\), or its name is misspelt"),
        (404, "RepoNotFound", r"no such folder here, and no such repository on"),
        (403, "GatedRepo", r"is gated: accept its terms at http://127.0.0.1:\d+/owner/name, then log in"),
        (403, "", r"refuses the download: ask its owner, or log in .* \(HTTP 403\)"),
        (500, "", r"cannot be downloaded now: try again later; what has come so far is kept \(HTTP 500\)"),
    ],
)
def test_refusals_of_the_hub(hub: HubServer, tmp_path: Path, status: int, code: str, words: str) -> None:
    hub.status, hub.code = status, code
    with pytest.raises(CheckpointError, match="owner/name: " + words) as caught:
        get(hub, tmp_path)
    assert "\n" not in str(caught.value)


def test_an_unknown_revision(hub: HubServer, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="owner/name: has no revision v7; see"):
        get(hub, tmp_path, "owner/name@v7")


def test_a_full_disk_is_told_before_the_download(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=200_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    with pytest.raises(CheckpointError, match=r"disk full: cannot download owner/name: needs 0.00 GB"):
        get(hub, tmp_path)
    with pytest.raises(CheckpointError, match=r"disk full: cannot download http"):
        download(f"{hub.url}/plain/{LARGE}", tmp_path, retries=QUICK)
    assert not hub.ranges(LARGE)[1:]  # the plain address is asked once, to learn the size


def test_a_disk_that_fills_up(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: object, **_settings: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("huggingface_hub.file_download.http_get", full)
    with pytest.raises(CheckpointError, match=r"disk full: cannot write .*name: .* GB free; make room"):
        get(hub, tmp_path)


# plain addresses


def test_an_address_is_downloaded_once_and_recorded(hub: HubServer, tmp_path: Path) -> None:
    url = f"{hub.url}/plain/{LARGE}"
    file = fetch(url, cache=tmp_path, retries=QUICK)
    assert file.read_bytes() == hub.files[LARGE]
    assert sorted(path.name for path in file.parent.iterdir()) == ["model.safetensors", "model.safetensors.json"]
    digest = hashlib.sha256(hub.files[LARGE]).hexdigest()
    assert digest in (file.parent / "model.safetensors.json").read_text()
    hub.requests.clear()
    assert fetch(url, cache=tmp_path, sha256=digest.upper()) == file
    assert not hub.requests
    file.write_bytes(b"something else")
    with pytest.raises(CheckpointError, match=rf"has SHA-256 \w+, expected {digest}: it was changed"):
        fetch(url, cache=tmp_path)


def test_an_address_is_resumed(hub: HubServer, tmp_path: Path) -> None:
    hub.breaks[LARGE] = 100_000
    file = download(f"{hub.url}/plain/{LARGE}", tmp_path, retries=QUICK)
    assert file.read_bytes() == hub.files[LARGE]
    assert hub.ranges(LARGE) == ["", "bytes=100000-"]


def test_an_address_is_resumed_by_the_next_run(hub: HubServer, tmp_path: Path) -> None:
    hub.breaks[LARGE] = 100_000
    url = f"{hub.url}/plain/{LARGE}"
    with pytest.raises(CheckpointError, match=r"the connection broke off, 100000 bytes so far\); check the network"):
        download(url, tmp_path, retries=Retries(count=0))
    assert download(url, tmp_path, retries=QUICK).read_bytes() == hub.files[LARGE]
    assert hub.ranges(LARGE) == ["", "bytes=100000-"]


@pytest.mark.parametrize("change", ["another file", "no ETag"])
def test_a_file_that_changed_meanwhile_is_fetched_anew(hub: HubServer, tmp_path: Path, change: str) -> None:
    """Two halves of two versions must not be put together."""
    hub.breaks[LARGE], hub.etags = 100_000, change != "no ETag"
    url = f"{hub.url}/plain/{LARGE}"
    with pytest.raises(CheckpointError, match="broke off"):
        download(url, tmp_path, retries=Retries(count=0))
    hub.files[LARGE] = bytes(reversed(hub.files[LARGE]))
    assert download(url, tmp_path, retries=QUICK).read_bytes() == hub.files[LARGE]


@pytest.mark.parametrize("etags", [True, False])
def test_a_server_that_promises_more_than_it_has(hub: HubServer, tmp_path: Path, etags: bool) -> None:
    """It is given up, however often the same bytes come."""
    hub.length, hub.etags = "400000", etags
    with pytest.raises(CheckpointError, match=r"cannot be downloaded \(.*; check the network and try again"):
        download(f"{hub.url}/plain/{LARGE}", tmp_path, retries=QUICK)
    assert len(hub.ranges(LARGE)) <= 2 * QUICK.count + 1


@pytest.mark.parametrize("length", ["many", "-5"])
def test_a_length_that_is_none(hub: HubServer, tmp_path: Path, length: str) -> None:
    hub.length = length
    assert download(f"{hub.url}/plain/{LARGE}", tmp_path, retries=QUICK).read_bytes() == hub.files[LARGE]


def test_an_address_that_sends_on(hub: HubServer, tmp_path: Path) -> None:
    url = f"{hub.url}/moved/w.safetensors"
    hub.redirect = f"{hub.url}/plain/{LARGE}"
    assert download(url, tmp_path / "1", retries=QUICK).read_bytes() == hub.files[LARGE]
    hub.redirect = "http://example.org/w.safetensors"
    words = r"moved/w.safetensors: sends on to http://example.org/w.safetensors, which is not encrypted on its way"
    with pytest.raises(CheckpointError, match=words):
        download(url, tmp_path / "2", retries=QUICK)


def test_another_sha256_than_given(hub: HubServer, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=rf"came with SHA-256 \w+, expected {'0' * 64}; the file was removed"):
        download(f"{hub.url}/plain/{LARGE}", tmp_path, sha256="0" * 64, retries=QUICK)
    assert not [path for path in tmp_path.rglob("*.safetensors*") if path.suffix != ".json"]


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://example.org/w.pth", "is not encrypted on its way; give an https address"),
        ("https://example.org/", "names no file"),
        ("https://example.org/%2e%2e/", "names no file"),
    ],
)
def test_addresses_that_are_refused(url: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=words):
        download(url, tmp_path)


def test_refusals_of_a_plain_server(hub: HubServer, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"other.pth: is not there \(HTTP 404\); check the address"):
        download(f"{hub.url}/plain/other.pth", tmp_path, retries=QUICK)
    hub.status = 503
    with pytest.raises(CheckpointError, match=r"cannot be downloaded \(.*0 bytes so far\)"):
        download(f"{hub.url}/plain/{LARGE}", tmp_path, retries=QUICK)
    assert len(hub.ranges(LARGE)) == QUICK.count
