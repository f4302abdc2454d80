"""The same on an object store: a local S3 server, by way of s3fs."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from engine.files import iter_shard
from render_farm.errors import RunError
from render_farm.export import export
from render_farm.shards import (
    Output,
    build_manifest,
    check_writable,
    is_sealed,
    list_receipts,
    open_output,
    read_rows,
    verify,
)
from tests.render_farm.shards.conftest import BALLS
from tests.render_farm.staged import Ball, seal

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Address of an S3 server on this machine."""
    moto = pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    running = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    yield "http://{}:{}".format(*running.get_host_and_port())
    running.stop()


@pytest.fixture
def bucket(server: str, monkeypatch, request) -> str:
    """Name of an empty bucket; s3fs finds server and keys in the environment, as users set them."""
    import boto3
    import s3fs

    for name, value in {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1",
                        "AWS_ENDPOINT_URL": server}.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    name = "b" + str(abs(hash(request.node.name)))
    boto3.client("s3").create_bucket(Bucket=name)
    return name


@pytest.fixture
def remote(bucket: str) -> Output:
    return open_output(f"s3://{bucket}/runs/one")


def names(output: Output) -> list[str]:
    return [name for folder in ("shards", "receipts", "manifest") for name in output.list(folder)]


def test_it_holds_the_same_bytes_as_a_folder(remote: Output, sealed: Path, tmp_path: Path) -> None:
    check_writable(remote)
    seal(remote, tmp_path / "staging", *BALLS)
    build_manifest(remote)
    local = {str(path.relative_to(sealed)) for path in sealed.rglob("*") if path.is_file()}
    assert set(names(remote)) == local
    for name in local:
        assert remote.get(name) == (sealed / name).read_bytes(), name
    assert verify(remote) == []
    assert [row["uid"] for row in read_rows(remote, "objects")] == ["apple", "cherry", "bell", "apple2", "egg"]
    streamed = [sample.uid for sample in iter_shard(remote.address("shards/000-000000.tar"))]
    assert streamed == ["apple", "apple", "cherry", "cherry"]


def test_flips_and_losses_are_found(remote: Output, sealed: Path) -> None:
    files = sorted(str(path.relative_to(sealed)) for path in sealed.rglob("*") if path.is_file())
    for name in files:
        remote.put(name, sealed / name)
    rng = np.random.default_rng(5)
    for name in files:
        data = bytearray(remote.get(name))
        data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        remote.put_bytes(name, bytes(data))
        assert name in [problem.name for problem in verify(remote)]
        remote.put(name, sealed / name)
    assert verify(remote) == []
    remote.remove("shards/000-000001.tar")
    assert [(p.kind, p.name) for p in verify(remote)] == [("missing-tar", "shards/000-000001.tar")]


def test_a_cut_between_tar_and_receipt_is_made_good(remote: Output, tmp_path: Path, monkeypatch) -> None:
    ball = Ball("apple")
    put = type(remote)._upload
    with monkeypatch.context() as patch:
        patch.setattr(
            type(remote), "_upload", lambda self, name, path: put(self, name, path) if "shards/" in name else 1 / 0
        )
        with pytest.raises(ZeroDivisionError):
            seal(remote, tmp_path / "staging", ball)
    assert names(remote) == ["shards/000-000000.tar"]
    assert not is_sealed(remote, "000-000000")
    assert [problem.kind for problem in verify(remote)] == ["stray"]
    seal(remote, tmp_path / "staging", ball)
    assert list_receipts(remote) == ("000-000000",)
    build_manifest(remote)
    assert verify(remote) == []


def test_a_second_session_goes_on(bucket: str, tmp_path: Path) -> None:
    """What one process sealed another sees: no listing is kept."""
    one, two = (open_output(f"s3://{bucket}/shared") for _ in range(2))
    assert list_receipts(one) == list_receipts(two) == ()
    (receipt,) = seal(one, tmp_path / "staging", Ball("apple"))
    assert is_sealed(two, "000-000000")
    assert seal(two, tmp_path / "staging", Ball("apple")) == [receipt]
    seal(two, tmp_path / "staging", Ball("bell", shard="000-000001"))
    assert list_receipts(one) == ("000-000000", "000-000001")


def test_exports_read_single_samples(remote: Output, sealed: Path, tmp_path: Path, monkeypatch) -> None:
    for path in sealed.rglob("*"):
        if path.is_file():
            remote.put(str(path.relative_to(sealed)), path)
    monkeypatch.setattr(type(remote), "get", read_but_no_tar(type(remote).get))
    export(remote, "nerfstudio", tmp_path / "remote", uids=["cherry"])
    export(open_output(sealed), "nerfstudio", tmp_path / "local", uids=["cherry"])
    found = {
        p.relative_to(tmp_path / "remote"): p.read_bytes() for p in (tmp_path / "remote").rglob("*") if p.is_file()
    }
    assert found
    for name, data in found.items():
        assert data == (tmp_path / "local" / name).read_bytes()


def read_but_no_tar(get):
    def checked(self: Output, name: str) -> bytes:
        assert not name.endswith(".tar"), "one sample is wanted, not the shard"
        return get(self, name)

    return checked


def test_a_large_file_comes_in_parts_and_is_seen_whole(remote: Output, tmp_path: Path) -> None:
    data = np.random.default_rng(1).bytes(120 << 20)  # more than the 50 MiB of one part
    (tmp_path / "large").write_bytes(data)
    remote.put("shards/large.tar", tmp_path / "large")
    assert remote.size("shards/large.tar") == len(data)
    assert remote.get_range("shards/large.tar", (100 << 20) + 7, 40) == data[(100 << 20) + 7 :][:40]
    with remote.local("shards/large.tar") as path:
        assert path.read_bytes() == data
    shutil.rmtree(tmp_path, ignore_errors=True)


def test_more_receipts_than_one_answer_lists(remote: Output, bucket: str) -> None:
    """S3 lists a thousand names at a time."""
    import boto3

    client = boto3.client("s3")
    for number in range(1003):
        client.put_object(Bucket=bucket, Key=f"runs/one/receipts/000-{number:06d}.json", Body=b"{}")
    assert list_receipts(remote) == tuple(f"000-{number:06d}" for number in range(1003))


def test_a_missing_bucket_is_named(bucket: str) -> None:
    with pytest.raises(RunError, match=r"^s3://no-such-bucket/run/\S+: cannot be written: .*bucket") as caught:
        check_writable(open_output("s3://no-such-bucket/run"))
    assert "\n" not in str(caught.value)
    with pytest.raises(
        RunError, match=r"s3://no-such-bucket/run/receipts/a\.json: cannot be read: there is no such file or b"
    ):
        open_output("s3://no-such-bucket/run").get("receipts/a.json")


def test_missing_credentials_are_named(bucket: str, monkeypatch, tmp_path: Path) -> None:
    import s3fs

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(RunError, match=r"cannot be written: no valid credentials \(.*\); log in, or set the variables"):
        check_writable(open_output(f"s3://{bucket}/run"))


def test_a_server_that_is_not_there_is_named(bucket: str, monkeypatch) -> None:
    import s3fs

    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # discard: nothing listens there
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(RunError, match=r"^s3://\S+: cannot be written: .*127\.0\.0\.1:9") as caught:
        check_writable(open_output(f"s3://{bucket}/run"))
    assert "\n" not in str(caught.value)
