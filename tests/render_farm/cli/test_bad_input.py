"""What cannot be done is said in one line, with exit status 1; usage errors are 2. Nothing is left behind. No Blender."""

import pytest

from render_farm.assets import FORMATS
from render_farm.records import Filters
from render_farm.run.folder import Run
from render_farm.spec import RenderSpec
from tests.render_farm.broken_assets import pillar
from tests.render_farm.cli.commands import Ended, call

VERBS = ("render", "example", "plan", "run", "status", "failures", "retry", "replay", "verify", "report", "export", "manifest",
         "gobjaverse", "worker", "slurm")  # fmt: skip
NO_RUN = "{folder}/no is not a run: there is no run.json in it; plan or start one first"
NO_OUTPUT = (
    "{folder}/no: expected a run's folder, or the folder or URL that holds its shards, found neither; check the path"
)


@pytest.mark.parametrize("verb", VERBS)
def test_help(verb):
    ended = call(verb, "--help")
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.startswith(f"usage: turntable-farm {verb} ")


def test_help_names_all_verbs():
    text = call("--help").out
    assert [verb for verb in VERBS if verb not in text] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["status", "{folder}/no"], NO_RUN),
        (["failures", "{folder}/no"], NO_RUN),
        (["retry", "{folder}/no"], NO_RUN),
        (["replay", "{folder}/no", "a", "--out", "{folder}/out"], NO_RUN),
        (["worker", "{folder}/no", "--shards", "0/1"], NO_RUN),
        (["slurm", "{folder}/no", "--script", "{folder}/script"], NO_RUN),
        (["verify", "{folder}/no"], NO_OUTPUT),
        (["report", "{folder}/no"], NO_OUTPUT),
        (["manifest", "{folder}/no"], NO_OUTPUT),
        (["export", "{folder}/no", "--kind", "opencv", "--target", "{folder}/out"], NO_OUTPUT),
        (["run", "{folder}/no"],
         "{folder}/no is not a run yet: name its objects with --assets, --objaverse or --objaverse-xl"),
        (["plan", "{folder}/no"],
         "{folder}/no is not a run yet: name its objects with --assets, --objaverse or --objaverse-xl"),
        (["run", "{folder}/list.csv", "--assets", "{folder}"],
         "{folder}/list.csv: expected the run's folder, found a file; name the folder"),
        (["run", "{folder}/no", "--assets", "{folder}/nowhere"],
         "{folder}/nowhere: there is no such file or folder; name a folder of models or a list of them"),
        (["run", "{folder}/no", "--assets", "{folder}"],
         f"{{folder}}: found no model in it; expected files ending in {' '.join(FORMATS)}"),
        (["run", "{folder}/no", "--assets", "{folder}/list.csv"],
         "list.csv: expected a column 'path', found 'name'; name the models' files there"),
        (["run", "{folder}/no", "--assets", "{folder}/model.xyz"],
         "model.xyz: expected a list of assets ending in .csv .tsv .parquet .json, found '.xyz'"),
    ],
)  # fmt: skip
def test_one_line_and_nothing_left(tmp_path, arguments, message):
    (tmp_path / "list.csv").write_text("name\na.glb\n")
    (tmp_path / "model.xyz").write_text("0 0 0\n")
    ended = call(*(argument.format(folder=tmp_path) for argument in arguments))
    assert ended == Ended(1, "", f"error: {message.format(folder=tmp_path)}\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["list.csv", "model.xyz"]


def test_an_output_that_cannot_be_written_is_found_before_the_run_is_made(tmp_path):
    (tmp_path / "models").mkdir()
    pillar(tmp_path / "models" / "a.glb")
    (tmp_path / "file").touch()
    ended = call("run", tmp_path / "run", "--assets", tmp_path / "models", "--out", tmp_path / "file" / "x")
    assert (ended.status, ended.out) == (1, "")
    assert ended.err.startswith(f"error: cannot write {tmp_path}/file/x/")
    assert ended.err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "models"]


def test_a_run_without_objects(tmp_path):
    Run.create(tmp_path / "run", RenderSpec(), Filters())
    message = f"{tmp_path}/run: this run has no objects; name some with --assets, --objaverse or --objaverse-xl"
    assert call("run", tmp_path / "run") == Ended(1, "", f"error: {message}\n")


def test_nothing_to_plan_for(tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "a.glb").write_bytes(b"<html>")
    ended = call("plan", tmp_path / "run", "--assets", tmp_path / "models", "--views", "8", "-q")
    message = f"{tmp_path}/run: there is nothing to render: 1 objects, all refused before rendering"
    assert ended == Ended(1, "", f"error: {message}\n")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--samples", "0"], "samples must lie between 1 and 65536, got 0"),
        (["--views", "0"], "views must lie between 1 and 1000, got 0"),
        (["--workers", "-1"], "slots must be at least 1, got -1"),
        (["--orbit", "hi3d", "--elevation-deg", "20"],
         "--elevation-deg changes nothing with --orbit hi3d, whose six rings have their own elevations: leave it out"),
        (["--threads", "-1"], "threads must be at least 1, got -1"),
    ],
)  # fmt: skip
def test_values_out_of_range_are_2(tmp_path, flags, message):
    (tmp_path / "models").mkdir()
    pillar(tmp_path / "models" / "a.glb")
    ended = call("run", tmp_path / "run", "--assets", tmp_path / "models", "-q", *flags)
    assert ended == Ended(2, "", f"error: {message}\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["models"]


def test_what_is_no_choice_is_2(tmp_path):
    ended = call("export", tmp_path, "--kind", "pictures", "--target", tmp_path / "out")
    assert (ended.status, ended.out) == (2, "")
    assert "pictures" in ended.err
