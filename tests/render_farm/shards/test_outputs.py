"""Outputs: whole files or none, whatever the place; errors in one line that say what to do."""

import errno
import hashlib
import sys
import uuid
from pathlib import Path

import pytest

from engine.errors import TurntableError
from render_farm.errors import RunError
from render_farm.shards import Output, check_writable, open_output, outputs


@pytest.fixture(params=["folder", "file", "memory", "other"])
def output(request, tmp_path: Path, monkeypatch) -> Output:
    """other: a remote file system without whole uploads, where a temporary name is renamed."""
    if request.param == "folder":
        return open_output(tmp_path / "out")
    if request.param == "file":
        return open_output(f"file://{tmp_path}/out")
    if request.param == "other":
        monkeypatch.setattr("render_farm.shards.outputs.WHOLE_UPLOADS", frozenset())
    return open_output(f"memory://{uuid.uuid4()}/out/")


def test_files_are_put_and_got(output: Output, tmp_path: Path) -> None:
    data = bytes(range(256)) * 9000  # more than two blocks
    (tmp_path / "a").write_bytes(data)
    assert (output.list("shards"), output.size("shards/a.tar"), output.exists("shards/a.tar")) == ((), None, False)
    output.put("shards/a.tar", tmp_path / "a")
    output.put_bytes("shards/b.tar", b"b")
    output.put_bytes("other/c", b"")
    assert output.list("shards") == ("shards/a.tar", "shards/b.tar")
    assert (output.get("shards/a.tar"), output.size("shards/a.tar")) == (data, len(data))
    assert output.sha256("shards/a.tar") == hashlib.sha256(data).hexdigest()
    assert output.get_range("shards/a.tar", 300, 5) == data[300:305]
    assert output.get_range("shards/a.tar", len(data) - 2, 5) == data[-2:]
    with output.local("shards/a.tar") as path:
        assert path.read_bytes() == data
    output.put_bytes("shards/a.tar", b"again")
    assert output.get("shards/a.tar") == b"again"
    output.remove("shards/a.tar")
    output.remove("shards/a.tar")  # nothing to do
    assert output.list("shards") == ("shards/b.tar",)
    assert output.exists("shards") is False  # a folder is no file


def test_a_writer_that_fails_leaves_nothing(output: Output) -> None:
    output.put_bytes("shards/a.tar", b"before")

    def fail() -> None:
        with output.writing("shards/a.tar") as path:
            path.write_bytes(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert output.get("shards/a.tar") == b"before"
    assert output.list("shards") == ("shards/a.tar",)


def test_partials_are_never_listed_and_can_be_cleared(output: Output) -> None:
    output.put_bytes("shards/a.tar", b"a")
    output.put_bytes("shards/a.tar.1234.partial", b"half")
    assert output.list("shards") == ("shards/a.tar",)
    output.put_bytes("shards/b.tar.1234.partial", b"of a process that still writes")
    output.clear_partials("shards/a.tar")
    output.clear_partials("nowhere/a.tar")
    assert output.get("shards/a.tar") == b"a"
    assert output.exists("shards/b.tar.1234.partial")
    if "memory" not in output.url:  # an object store has none of its own
        assert not output.exists("shards/a.tar.1234.partial")


def test_check_writable_leaves_nothing(output: Output) -> None:
    check_writable(output)
    assert output.list("receipts") == ()


def test_missing_files_are_named(output: Output) -> None:
    for read in (output.get, output.sha256, lambda name: output.get_range(name, 0, 1)):
        with pytest.raises(RunError, match=r"none\.tar: cannot be read: .*[Nn]o such file") as caught:
            read("shards/none.tar")
        assert "\n" not in str(caught.value)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file stands here")
    with pytest.raises(TurntableError, match=r"cannot write .*out/receipts.*Not a directory"):
        check_writable(open_output(tmp_path / "out"))


def test_a_missing_package_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    loaded = sys.modules["fsspec.registry"]._registry
    monkeypatch.delitem(loaded, "s3", raising=False)  # another test may have asked for it
    message = r"^s3://bucket/a: s3:// needs a package that is not here: pip install s3fs \(the extra `s3`\) \("
    with pytest.raises(RunError, match=message):
        open_output("s3://bucket/a")


def test_google_without_its_package_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(RunError, match=r"^gs://bucket/a: gs:// needs a package that is not here: pip install gcsfs \("):
        open_output("gs://bucket/a")


def test_new_folders_outlive_a_power_cut(tmp_path: Path, monkeypatch) -> None:
    """Each folder whose entry is new is synced, from the outside in; a receipt in a folder that is lost seals nothing."""
    synced: list[Path] = []
    monkeypatch.setattr(outputs, "sync_folder", synced.append)
    open_output(tmp_path / "runs" / "one").put_bytes("receipts/a.json", b"{}")
    assert synced == [tmp_path, tmp_path / "runs", tmp_path / "runs" / "one"]
    open_output(tmp_path / "runs" / "one").put_bytes("receipts/b.json", b"{}")
    assert len(synced) == 3


def test_an_outage_is_waited_out_once_it_has_answered(monkeypatch, caplog) -> None:
    """Before anything came back, the address may be wrong: that is said at once."""
    waits: list[float] = []
    monkeypatch.setattr(outputs.time, "sleep", waits.append)
    output = open_output("memory://outage")
    read, faults = output.fs.cat_file, [OSError(errno.EBUSY, "Slow Down"), ConnectionResetError("by peer")] * 2

    def fail(path: str, **more: object) -> bytes:
        if faults:
            raise faults.pop(0)
        return read(path, **more)

    monkeypatch.setattr(output.fs, "cat_file", fail)
    with pytest.raises(RunError, match=r"^memory://outage/a: cannot be read: \[Errno 16\] Slow Down$"):
        output.get("a")
    assert waits == []
    output.put_bytes("a", b"whole")
    assert output.get("a") == b"whole"
    assert waits == list(outputs.RETRY_S)
    assert "cannot be read: by peer; trying again in 2 s" in caplog.text
    faults[:] = [PermissionError("no")]
    with pytest.raises(RunError, match="access denied"):
        output.get("a")
    assert len(waits) == 3  # asking again does not give rights


def test_an_unknown_address_is_refused() -> None:
    with pytest.raises(RunError, match=r"^nonsense://a: is no address that fsspec knows"):
        open_output("nonsense://a")
