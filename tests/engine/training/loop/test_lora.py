"""LoRA: in, out, back in, merged."""

import peft
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from engine.errors import CheckpointError, TrainingError
from engine.training.loop.lora import add_adapters, is_adapted, load_adapters, merge_adapters, merged, save_adapters
from tests.engine.training.loop.toys import SIDE, VIEWS, ToyStudent, ToyTask

PICTURES = torch.linspace(-1, 1, 2 * VIEWS * 3 * SIDE * SIDE).reshape(2, VIEWS, 3, SIDE, SIDE)


def trained_task() -> ToyTask:
    """A task whose adapters, and the camera's embedding beside them, have learned something."""
    task = ToyTask()
    add_adapters(task, rank=4, seed=0)
    with torch.no_grad():
        for parameter in task.student.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    return task


def test_fresh_adapters_change_nothing_and_are_all_that_learns():
    task = ToyTask()
    before = task.student(PICTURES)
    add_adapters(task, rank=4, seed=0)
    assert torch.equal(task.student(PICTURES), before)
    learns = {name for name, parameter in task.student.named_parameters() if parameter.requires_grad}
    assert all("lora_" in name or "camera_embedding" in name for name in learns)
    assert len(learns) == 6


def test_saved_adapters_give_the_same_output_in_a_fresh_student(tmp_path):
    task = trained_task()
    save_adapters(task.student, tmp_path / "adapters")
    fresh = ToyTask().student
    assert not torch.equal(fresh(PICTURES), task.student(PICTURES))
    load_adapters(fresh, tmp_path / "adapters")
    assert torch.equal(fresh(PICTURES), task.student(PICTURES))


def test_peft_itself_reads_the_folder(tmp_path):
    task = trained_task()
    save_adapters(task.student, tmp_path / "adapters")
    theirs = peft.PeftModel.from_pretrained(ToyTask().student, str(tmp_path / "adapters"))
    assert torch.equal(theirs(PICTURES), task.student(PICTURES))


def test_merged_weights_are_plain_and_give_the_same_output():
    task = trained_task()
    expected = task.student(PICTURES)
    names = set(ToyTask().student.state_dict())
    merge_adapters(task.student)
    assert not is_adapted(task.student)
    assert set(task.student.state_dict()) == names
    # (W + BA) x against W x + B (A x): single precision, sums of 48 terms
    torch.testing.assert_close(task.student(PICTURES), expected, rtol=1e-5, atol=1e-5)


def test_merging_for_a_while_leaves_no_trace():
    task = trained_task()
    before = {name: tensor.clone() for name, tensor in task.student.state_dict().items()}
    output = task.student(PICTURES)
    with merged(task.student):
        assert set(task.student.state_dict()) == set(ToyTask().student.state_dict())
        torch.testing.assert_close(task.student(PICTURES), output, rtol=1e-5, atol=1e-5)  # as above
    after = task.student.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert torch.equal(task.student(PICTURES), output)


def test_names_in_the_file_are_those_of_peft(tmp_path):
    save_adapters(trained_task().student, tmp_path)
    assert set(load_file(tmp_path / "adapter_model.safetensors")) == {
        "base_model.model.unet.to_q.lora_A.weight", "base_model.model.unet.to_q.lora_B.weight",
        "base_model.model.unet.to_out.0.lora_A.weight", "base_model.model.unet.to_out.0.lora_B.weight",
        "base_model.model.unet.camera_embedding.weight", "base_model.model.unet.camera_embedding.bias",
    }  # fmt: skip


def test_a_folder_without_adapters_and_those_of_another_network_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"holds no adapters: expected adapter_config.json"):
        load_adapters(ToyTask().student, tmp_path)
    save_adapters(trained_task().student, tmp_path)
    with pytest.raises(CheckpointError, match="these adapters do not fit ToyStudent"):
        load_adapters(ToyStudent(width=8), tmp_path)


def test_a_network_without_attention_is_refused():
    task = ToyTask()
    task.student = nn.Sequential(nn.Linear(2, 2))
    with pytest.raises(TrainingError, match="--lora: Sequential has no attention to put adapters beside"):
        add_adapters(task, rank=2, seed=0)
