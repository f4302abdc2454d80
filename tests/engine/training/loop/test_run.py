"""Whole runs of toys: learn, stop, go on, refuse, keep the best."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from engine.errors import TrainingError, TurntableError
from engine.results import locked
from engine.training.loop import state
from engine.training.loop.run import train
from engine.training.loop.settings import Feed, LoopSettings
from engine.training.types import Batch, Losses
from tests.engine.training.loop.toys import TOYS, ToyTask, toy_recipe, toy_train

pytestmark = pytest.mark.usefixtures("one_thread")
REPOSITORY = Path(__file__).parents[4]
CPU = LoopSettings(device="cpu", checkpoint_every=3, validate_every=4, log_every=2, seed=7)


def losses(run: Path) -> list[tuple[int, float]]:
    """Steps and losses as the run wrote them down."""
    return [(line["step"], line["loss"]) for line in map(json.loads, (run / "losses.jsonl").read_text().splitlines())]


def final(run: Path) -> dict[str, torch.Tensor]:
    """The run's last weights."""
    return load_file(run / "weights" / "unet" / "toy.safetensors")


def signalled(task: ToyTask, at: int, number: int = signal.SIGTERM) -> ToyTask:
    """Let a signal arrive in the middle of a forward pass."""
    plain = task.loss

    def loss(student: torch.nn.Module, batch: Batch, *, share: float) -> Losses:
        if len(task.shares) == at:
            os.kill(os.getpid(), number)
        return plain(student, batch, share=share)

    task.loss = loss  # type: ignore[method-assign]
    return task


# ---------------------------------------------------------------- learning
def test_a_run_learns_and_leaves_everything(tmp_path):
    outcome = train(ToyTask(), TOYS, toy_recipe(steps=40), tmp_path, CPU)
    told = losses(tmp_path)
    assert [step for step, _ in told] == list(range(1, 41))
    assert told[-1][1] < 0.5 * told[0][1]
    assert outcome.steps == 40
    assert outcome.samples == 160
    assert {path.name for path in tmp_path.iterdir()} == {
        "run.json", "checkpoints", "best", "weights", "losses.jsonl", "measures.jsonl", "log", "previews",
    }  # fmt: skip
    assert [path.name for path in state.checkpoints(tmp_path)] == ["step-00000039", "step-00000040"]


def test_run_json_says_what_was_asked(tmp_path):
    train(ToyTask(), TOYS, toy_recipe(), tmp_path, CPU, asked={"data": ["a.tar"]})
    said = json.loads((tmp_path / "run.json").read_text())
    assert said["identity"]["recipe"] == "vae"
    assert said["recipe"]["optimisation"]["learning_rate"] == 0.01
    assert said["settings"]["seed"] == 7
    assert said["asked"] == {"data": ["a.tar"]}
    assert said["versions"]["torch"] == torch.__version__
    assert [call["after_step"] for call in said["calls"]] == [0]


def test_accumulated_micro_batches_make_the_same_steps(tmp_path):
    whole = ToyTask()
    train(whole, TOYS, toy_recipe(), tmp_path / "whole", CPU)
    train(ToyTask(), TOYS, toy_recipe(), tmp_path / "parts", replace(CPU, micro_batch=1))
    # means of four against sums of quarters, single precision
    np.testing.assert_allclose([x for _, x in losses(tmp_path / "whole")], [x for _, x in losses(tmp_path / "parts")],
                               rtol=1e-5)  # fmt: skip


def test_the_final_weights_are_the_averaged_ones(tmp_path):
    train(ToyTask(), TOYS, toy_recipe(), tmp_path / "averaged", CPU)
    train(ToyTask(), TOYS, toy_recipe(ema_decay=None), tmp_path / "last", CPU)
    ema = load_file(state.checkpoints(tmp_path / "averaged")[-1] / "ema-00000.safetensors")
    last = load_file(state.checkpoints(tmp_path / "last")[-1] / "model.safetensors")
    assert torch.equal(final(tmp_path / "averaged")["to_q.weight"], ema["unet.to_q.weight"])
    assert torch.equal(final(tmp_path / "last")["to_q.weight"], last["unet.to_q.weight"])


def test_tasks_are_told_how_far_the_run_is(tmp_path):
    task = ToyTask()
    train(task, TOYS, toy_recipe(steps=4), tmp_path, CPU)
    assert task.shares == [0.0, 0.25, 0.5, 0.75]


def test_slowed_gradients_reach_the_pretrained_parameters_alone(tmp_path):
    """Without Adam's division the effect would be plain; with it, eps makes the difference seen here: a gradient times 0
    does not move a parameter at all."""
    task = ToyTask()
    task.pretrained_parameters = ["unet.to_q.weight"]
    before = {name: parameter.detach().clone() for name, parameter in task.student.named_parameters()}
    train(task, TOYS, toy_recipe(slowed=0.0, steps=2), tmp_path, CPU)
    after = dict(task.student.named_parameters())
    assert torch.equal(after["unet.to_q.weight"], before["unet.to_q.weight"])
    assert not torch.equal(after["unet.to_q.bias"], before["unet.to_q.bias"])


def test_a_run_of_minutes_ends_by_the_clock(tmp_path):
    task = ToyTask()
    outcome = train(task, TOYS, toy_recipe(steps=100_000), tmp_path, replace(CPU, minutes=0.01, checkpoint_every=10**6))
    assert 1 < outcome.steps < 100_000
    assert task.shares == sorted(task.shares)
    assert 0 < task.shares[-1] <= 1
    again = train(ToyTask(), TOYS, toy_recipe(steps=100_000), tmp_path, replace(CPU, minutes=0.01))
    assert again.steps == outcome.steps  # its time is spent


# ---------------------------------------------------------------- stopping and going on
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_was_stopped_goes_on_with_the_same_losses(tmp_path, number):
    """Dropout, averaging and accumulation are all in it: bit by bit on one machine."""
    recipe, settings = toy_recipe(steps=12), replace(CPU, micro_batch=2)
    train(ToyTask(dropout=0.3), TOYS, recipe, tmp_path / "undisturbed", settings)
    with pytest.raises(KeyboardInterrupt):
        train(signalled(ToyTask(dropout=0.3), 9, number), TOYS, recipe, tmp_path / "stopped", settings)
    assert len(losses(tmp_path / "stopped")) == 5  # the tenth micro-batch is the fifth step's second: it is finished
    train(ToyTask(dropout=0.3), TOYS, recipe, tmp_path / "stopped", settings)
    assert losses(tmp_path / "stopped") == losses(tmp_path / "undisturbed")
    expected, found = final(tmp_path / "undisturbed"), final(tmp_path / "stopped")
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_signals_mean_again_what_they_meant_before(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    train(ToyTask(), TOYS, toy_recipe(steps=1), tmp_path, CPU)
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_with_the_same_losses(tmp_path):
    """SIGKILL in the middle of step 8: the last checkpoint is that of step 6, and step 7 is made again."""
    for name, kill_at in (("undisturbed", -1), ("killed", 7), ("killed", -1)):
        done = subprocess.run(
            [sys.executable, "-m", "tests.engine.training.loop.toy_child", str(tmp_path / name), "12", str(kill_at), "0.3"],
            cwd=REPOSITORY, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False,
        )  # fmt: skip
        assert done.returncode == (-signal.SIGKILL if kill_at >= 0 else 0), done.stderr
        if kill_at >= 0:
            assert losses(tmp_path / "killed")[-1][0] == 7
    expected, found = losses(tmp_path / "undisturbed"), losses(tmp_path / "killed")
    assert [step for step, _ in found] == [step for step, _ in expected]
    # the promise; on one machine they are equal
    np.testing.assert_allclose([x for _, x in found], [x for _, x in expected], atol=1e-6, rtol=0)


def test_a_finished_run_does_nothing_and_makes_lost_weights_again(tmp_path):
    train(ToyTask(), TOYS, toy_recipe(), tmp_path, CPU)
    expected = final(tmp_path)
    shutil.rmtree(tmp_path / "weights")
    outcome = train(ToyTask(), TOYS, toy_recipe(), tmp_path, CPU)
    assert outcome.loss is None
    assert all(torch.equal(final(tmp_path)[name], expected[name]) for name in expected)


def test_more_steps_go_on_from_where_it_ended(tmp_path, caplog):
    train(ToyTask(), TOYS, toy_recipe(schedule="constant"), tmp_path / "twice", CPU)
    train(ToyTask(), TOYS, toy_recipe(schedule="constant", steps=12), tmp_path / "twice", CPU)
    assert "other settings than it began: steps 8 -> 12" in caplog.text
    train(ToyTask(), TOYS, toy_recipe(schedule="constant", steps=12), tmp_path / "once", CPU)
    assert losses(tmp_path / "twice") == losses(tmp_path / "once")


def test_resume_can_be_refused_and_insisted_on(tmp_path):
    with pytest.raises(TrainingError, match="holds no checkpoint to go on from; start with --resume auto"):
        train(ToyTask(), TOYS, toy_recipe(), tmp_path, replace(CPU, resume="must"))
    train(ToyTask(), TOYS, toy_recipe(), tmp_path, CPU)
    with pytest.raises(TrainingError, match="holds a run of 8 steps: take --resume auto to go on, or another --out"):
        train(ToyTask(), TOYS, toy_recipe(), tmp_path, replace(CPU, resume="never"))


def test_another_recipe_in_the_same_folder_is_refused(tmp_path):
    train(ToyTask(), TOYS, toy_recipe(), tmp_path, CPU)
    with pytest.raises(TrainingError, match="the recipe was vae, asked for is depth"):
        train(ToyTask(), TOYS, replace(toy_recipe(), name="depth"), tmp_path, CPU)
    with pytest.raises(TrainingError, match="the network's parameters was"):
        train(ToyTask(width=8), TOYS, toy_recipe(), tmp_path, CPU)


def test_a_folder_in_which_another_run_writes_is_refused(tmp_path):
    with locked(tmp_path), pytest.raises(TurntableError, match="another turntable is writing here"):
        train(ToyTask(), TOYS, toy_recipe(), tmp_path, CPU)


# ---------------------------------------------------------------- validation
class Worsening(ToyTask):
    """Measures 3, then 1, then 2."""

    def __init__(self) -> None:
        super().__init__()
        self.measured: list[float] = []

    def measure(self, student: torch.nn.Module, batch: Batch) -> Mapping[str, float]:
        step = len(self.measured) // 2  # two batches a validation
        self.measured.append((3.0, 1.0, 2.0)[step])
        return {"loss": self.measured[-1]}


def test_the_best_weights_on_held_out_objects_are_kept(tmp_path):
    outcome = train(Worsening(), TOYS, toy_recipe(steps=12), tmp_path, CPU)
    assert outcome.best == 1.0
    told = [json.loads(line) for line in (tmp_path / "measures.jsonl").read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in told] == [(4, 3.0), (8, 1.0), (12, 2.0)]
    assert "updates: 8 of 4 clips" in (tmp_path / "best" / "README.md").read_text()
    assert "updates: 12 of 4 clips" in (tmp_path / "weights" / "README.md").read_text()


def test_measures_are_means_over_clips_not_over_batches(tmp_path):
    """Five held-out clips in batches of four and one."""

    class Counting(ToyTask):
        def measure(self, student: torch.nn.Module, batch: Batch) -> Mapping[str, float]:
            return {"loss": float(len(batch))}

    train(Counting(), TOYS, toy_recipe(steps=1), tmp_path, CPU)
    assert json.loads((tmp_path / "measures.jsonl").read_text())["loss"] == (4 * 4 + 1 * 1) / 5


def test_validation_does_not_change_what_follows(tmp_path):
    for name, every in (("often", 1), ("never", 10**6)):
        train(ToyTask(dropout=0.3), TOYS, toy_recipe(), tmp_path / name, replace(CPU, validate_every=every))
    assert losses(tmp_path / "often") == losses(tmp_path / "never")


def test_no_held_out_object_is_an_error(tmp_path):
    with pytest.raises(TrainingError, match="--val: the shards hold no clip that fits the recipe"):
        train(ToyTask(), Feed(toy_train, lambda reader: []), toy_recipe(), tmp_path, CPU)


# ---------------------------------------------------------------- what goes wrong
def test_a_loss_that_is_no_number_names_step_object_and_checkpoint(tmp_path):
    task = ToyTask()
    task.spoil = ["object5"]
    recipe = toy_recipe(steps=12)
    with pytest.raises(TrainingError) as caught:
        train(task, TOYS, recipe, tmp_path, replace(CPU, micro_batch=1, checkpoint_every=1))
    assert str(caught.value).startswith("step 2: the loss of object4, object5, object6, object7 is not a finite number")
    assert str(caught.value).endswith(f"Last good checkpoint: {state.checkpoint_path(tmp_path, 1)}")
    assert [step for step, _ in losses(tmp_path)] == [1]
    weights = load_file(state.checkpoint_path(tmp_path, 1) / "model.safetensors")
    assert torch.equal(task.student.unet.to_q.weight, weights["unet.to_q.weight"])  # the step changed nothing


def test_activations_are_computed_twice_where_the_network_can(tmp_path, caplog):
    task = ToyTask()
    train(task, TOYS, toy_recipe(steps=1, gradient_checkpointing=True), tmp_path / "cannot", CPU)
    assert "ToyStudent cannot compute activations twice" in caplog.text
    caplog.clear()
    task.student.enable_gradient_checkpointing = lambda: setattr(task, "twice", True)
    train(task, TOYS, toy_recipe(steps=1, gradient_checkpointing=True), tmp_path / "can", CPU)
    assert task.twice
    assert "cannot" not in caplog.text


def test_no_memory_is_explained(tmp_path):
    class Greedy(ToyTask):
        def loss(self, student: torch.nn.Module, batch: Batch, *, share: float) -> Losses:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    with pytest.raises(TrainingError) as caught:
        train(Greedy(), TOYS, toy_recipe(), tmp_path, CPU)
    assert str(caught.value) == (
        "out of memory on cpu: vae (tiny) with 4 clips of 2 views at 4 px a forward pass, precision no, gradient "
        "checkpointing off; try --micro-batch 2 (the step stays 4 clips), --gradient-checkpointing, --ema-decay 0 (keeps "
        "no average), --lora 16 (trains adapters alone), or more GPUs with FSDP; --dry-run estimates"
    )


def test_memory_that_the_cpu_has_not_is_explained(tmp_path):
    class Greedy(ToyTask):
        def loss(self, student: torch.nn.Module, batch: Batch, *, share: float) -> Losses:
            torch.empty(2**60)
            raise AssertionError

    with pytest.raises(TrainingError, match="out of memory on cpu: vae"):
        train(Greedy(), TOYS, toy_recipe(), tmp_path, CPU)


def test_other_errors_stay_what_they_are(tmp_path):
    class Broken(ToyTask):
        def loss(self, student: torch.nn.Module, batch: Batch, *, share: float) -> Losses:
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        train(Broken(), TOYS, toy_recipe(), tmp_path, CPU)


def test_a_batch_that_does_not_divide_is_refused(tmp_path):
    with pytest.raises(TrainingError, match="--batch-size 4 cannot be dealt to 1 processes with --micro-batch 3: "):
        train(ToyTask(), TOYS, toy_recipe(), tmp_path, replace(CPU, micro_batch=3))


def test_half_precision_without_a_gpu_is_refused(tmp_path):
    with pytest.raises(TrainingError, match="--precision fp16: needs a GPU"):
        train(ToyTask(), TOYS, toy_recipe(), tmp_path, replace(CPU, precision="fp16"))


@pytest.mark.parametrize(
    ("name", "value"), [("keep", 0), ("micro_batch", 0), ("minutes", 0.0), ("log_every", 0), ("lora_rank", 0)]
)
def test_numbers_that_make_no_sense_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} must be"):
        LoopSettings(**{name: value})


# ---------------------------------------------------------------- adapters
def test_adapters_are_trained_stored_resumed_and_merged(tmp_path):
    recipe, settings = toy_recipe(steps=6), replace(CPU, lora_rank=2)
    train(ToyTask(), TOYS, recipe, tmp_path / "undisturbed", settings)
    with pytest.raises(KeyboardInterrupt):
        train(signalled(ToyTask(), 2), TOYS, recipe, tmp_path / "stopped", settings)
    train(ToyTask(), TOYS, recipe, tmp_path / "stopped", settings)
    assert losses(tmp_path / "stopped") == losses(tmp_path / "undisturbed")
    stored = load_file(state.checkpoints(tmp_path / "stopped")[-1] / "model.safetensors")
    assert all("lora_" in name or "modules_to_save" in name for name in stored)  # not the frozen weights
    weights = final(tmp_path / "stopped")
    assert set(weights) == set(ToyTask().student.unet.state_dict())
    assert not torch.equal(weights["to_q.weight"], ToyTask().student.unet.to_q.weight)
    assert (tmp_path / "stopped" / "weights" / "adapters" / "adapter_config.json").is_file()
