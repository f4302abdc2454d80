"""All commands, by the verbs that name them."""

from typing import Annotated

from tyro.conf import subcommand as named

from render_farm.cli.adopting import Gobjaverse
from render_farm.cli.again import Replay, Retry
from render_farm.cli.farming import Plan, RunCommand, Slurm, Worker
from render_farm.cli.looking import Export, Failures, Manifest, Report, Status, Verify
from render_farm.cli.objects import Example, Render

Command = (
    Annotated[Render, named("render")]
    | Annotated[Example, named("example")]
    | Annotated[Plan, named("plan")]
    | Annotated[RunCommand, named("run")]
    | Annotated[Status, named("status")]
    | Annotated[Failures, named("failures")]
    | Annotated[Retry, named("retry")]
    | Annotated[Replay, named("replay")]
    | Annotated[Verify, named("verify")]
    | Annotated[Report, named("report")]
    | Annotated[Export, named("export")]
    | Annotated[Manifest, named("manifest")]
    | Annotated[Gobjaverse, named("gobjaverse")]
    | Annotated[Worker, named("worker")]
    | Annotated[Slurm, named("slurm")]
)
