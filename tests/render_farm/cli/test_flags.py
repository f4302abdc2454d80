"""Flags stand for the values of the rooms that do the work: same names, same choices, same defaults."""

import re
from dataclasses import fields, replace
from typing import get_args, get_type_hints

import pytest
import tyro

from engine.command_line import PLAIN_FLAGS, Talk
from render_farm.cameras import orbits
from render_farm.cli import adopting
from render_farm.cli.farming import Plan, RunCommand, Slurm
from render_farm.cli.looking import Export
from render_farm.cli.objects import Render
from render_farm.cli.options import UNUSED, FarmFlags, NewRunFlags, SpecFlags, cores
from render_farm.engines.array_job import ArrayJob
from render_farm.export import Kind
from render_farm.gobjaverse import ORBITS
from render_farm.records import Filters
from render_farm.run.settings import FarmSettings
from render_farm.spec import AssetPolicy, CameraSpec, Layout, LightSpec, RenderSpec


def parsed(command, *arguments):
    return tyro.cli(command, args=list(arguments), config=PLAIN_FLAGS)


def test_without_flags_the_spec_is_the_default():
    assert SpecFlags().spec() == RenderSpec(light=LightSpec(hdris=()))  # white light needs no pictures


@pytest.mark.parametrize("command", [Plan, RunCommand, Render])
def test_the_policy_is_the_specs_own(command):
    more = ["--out", "o"] if command is Render else []
    asked = parsed(command, "x", *more, "--frame", "12", "--max-file-bytes", "7", "--transparent", "opaque")
    assert asked.spec.spec().assets == AssetPolicy(frame=12, max_file_bytes=7, transparent="opaque")
    assert parsed(command, "x", *more, "--frame", "rest").spec.spec().assets.frame == "rest"


@pytest.mark.parametrize(("text", "quality"), [("lossless", "lossless"), ("88", 88)])
def test_quality(text, quality):
    assert parsed(Plan, "x", "--quality", text).spec.spec().quality == quality


@pytest.mark.parametrize(("flag", "value"), [("--quality", "low"), ("--frame", "last"), ("--samples", "many")])
def test_what_is_no_value_is_a_usage_error(flag, value, capsys):
    with pytest.raises(SystemExit) as ended:
        parsed(Plan, "x", flag, value)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert flag in said
    assert value in said


def test_filters_are_the_runs_own():
    asked = parsed(RunCommand, "x", "--cropped", "refuse", "--licences", "CC0-1.0", "CC-BY*", "--white-share", "0.5")
    assert asked.filters == Filters(cropped="refuse", licences=("CC0-1.0", "CC-BY*"), white_share=0.5)


def test_plan_and_run_take_the_same_flags():
    own = {"sample", "price_per_hour", "json"}, {"engine", "ray_address"}
    plan, run = ({field.name for field in fields(command)} for command in (Plan, RunCommand))
    assert (plan - run, run - plan) == own
    arguments = ["x", "--views", "9", "--workers", "2", "--shard-objects", "5", "-q"]
    asked = parsed(Plan, *arguments)
    again = parsed(RunCommand, *arguments)
    assert all(getattr(asked, name) == getattr(again, name) for name in plan & run)
    assert (asked.new, asked.talk) == (NewRunFlags(shard_objects=5), Talk(quiet=True))


def test_slurm_flags_are_the_jobs():
    asked = parsed(Slurm, "x", "--script", "s", "--array", "3", "--at-a-time", "2", "--partition", "long")
    assert asked.job == ArrayJob(3, 2, partition="long")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (SpecFlags("hi3d", elevation_deg=20.0),
         "--elevation-deg changes nothing with --orbit hi3d, whose six rings have their own elevations: leave it out"),
        (SpecFlags("hammersley", elevation_deg=0.0),
         "--elevation-deg changes nothing with --orbit hammersley, whose views are all around: leave it out"),
        (SpecFlags("random", elevation_deg=0.0),
         "--elevation-deg changes nothing with --orbit random, whose elevations are drawn: leave it out"),
        (SpecFlags("custom", views=8),
         "--views changes nothing with --orbit custom, whose views are those of --places: leave it out"),
        (SpecFlags("custom", distance_m=2.0),
         "--distance-m changes nothing with --orbit custom, whose views are those of --places: leave it out"),
        (SpecFlags("custom", elevation_deg=9.0),
         "--elevation-deg changes nothing with --orbit custom, whose views are those of --places: leave it out"),
    ],
)  # fmt: skip
def test_what_a_layout_has_no_use_for_is_refused(flags, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        flags.spec()


def places_of(cameras):
    return [orbit.T_world_camera.tolist() for orbit in orbits(7, cameras, 32, 32)]


@pytest.mark.parametrize("layout", get_args(Layout))
def test_the_cameras_have_no_use_for_just_these(layout):
    """What is refused changes no camera; what is not does."""
    places = ((0.0, 10.0, 2.0),) if layout == "custom" else ()
    without = CameraSpec(layout, places=places)
    for name, value in (("views", 5), ("distance_m", 3.0), ("elevation_deg", 1.5)):
        is_unused = places_of(replace(without, **{name: value})) == places_of(without)
        assert is_unused == (name in UNUSED.get(layout, ())), name


def test_choices_are_those_of_the_rooms():
    assert get_args(get_type_hints(Export)["kind"]) == get_args(Kind)
    assert get_args(adopting.Orbit) == tuple(ORBITS)


@pytest.mark.parametrize(
    ("flags", "slots", "threads"),
    [
        (FarmFlags(), cores(), 1),
        (FarmFlags(workers=1), 1, cores()),
        (FarmFlags(workers=2, threads=3), 2, 3),
        (FarmFlags(gpus=("0", "1")), 2, max(1, cores() // 2)),
    ],
)
def test_cores_are_shared_out(flags, slots, threads):
    settings = flags.settings(None)
    assert (settings.slots, settings.execution.threads) == (slots, threads)


def test_farm_flags_have_the_schedulers_defaults():
    settings, own = FarmFlags(workers=1).settings(None), FarmSettings()
    for name in ("slots", "recycle_objects", "recycle_bytes", "retries", "finishers", "gpus"):
        assert getattr(settings, name) == getattr(own, name)


@pytest.mark.parametrize(("name", "message"), [("workers", "slots must be at least 1, got 0"),
                                               ("threads", "threads must be at least 1, got 0")])  # fmt: skip
def test_none_at_all_is_refused(name, message):
    with pytest.raises(ValueError, match=message):
        FarmFlags(**{name: 0}).settings(None)
