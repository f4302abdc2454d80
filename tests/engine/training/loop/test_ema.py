"""The moving average: the formula, the swap, the file."""

import pytest
import torch
from torch import nn

from engine.errors import TrainingError
from engine.training.loop.ema import MovingAverage


def test_the_average_follows_the_formula_with_a_warmed_up_decay():
    network = nn.Linear(2, 2, bias=False)
    average = MovingAverage(network, 0.9)
    expected = network.weight.detach().clone()
    for update in range(1, 30):
        with torch.no_grad():
            network.weight.add_(torch.randn(2, 2))
        average.update()
        decay = min(0.9, (1 + update - 1) / (10 + update - 1)) if update > 1 else 0.0
        expected = decay * expected + (1 - decay) * network.weight.detach()
    with average.standing_in():
        # single precision, 30 updates in other order of operations
        torch.testing.assert_close(network.weight.detach(), expected, rtol=1e-5, atol=1e-6)


def test_weights_come_back_bit_by_bit():
    network = nn.Linear(3, 3)
    average = MovingAverage(network, 0.5)
    before = network.weight.detach().clone()
    with torch.no_grad():
        network.weight.mul_(1.1)
    trained = network.weight.detach().clone()
    with average.standing_in():
        assert torch.equal(network.weight, before)
    assert torch.equal(network.weight, trained)


def test_frozen_parameters_are_not_averaged(tmp_path):
    network = nn.Linear(3, 3)
    network.bias.requires_grad_(False)
    MovingAverage(network, 0.5).save(tmp_path / "ema.safetensors")
    from safetensors.torch import load_file

    assert list(load_file(tmp_path / "ema.safetensors")) == ["weight"]


def test_a_saved_average_goes_on_as_if_nothing_had_happened(tmp_path):
    torch.manual_seed(3)
    network = nn.Linear(3, 3)
    first = MovingAverage(network, 0.9)
    for _ in range(5):
        with torch.no_grad():
            network.weight.mul_(1.1)
        first.update()
    first.save(tmp_path / "ema.safetensors")
    second = MovingAverage(network, 0.9)
    second.load(tmp_path / "ema.safetensors")
    for average in (first, second):  # the decay depends on the number of updates, which is in the file
        average.update()
    with first.standing_in():
        expected = network.weight.detach().clone()
    with second.standing_in():
        assert torch.equal(network.weight, expected)


def test_an_average_of_another_network_is_refused(tmp_path):
    MovingAverage(nn.Linear(2, 2), 0.9).save(tmp_path / "ema.safetensors")
    with pytest.raises(TrainingError, match="is the average of another network: bias is in one alone"):
        MovingAverage(nn.Linear(2, 2, bias=False), 0.9).load(tmp_path / "ema.safetensors")
    with pytest.raises(TrainingError, match="resume with --ema-decay as before"):
        MovingAverage(nn.Linear(2, 2), 0.9).load(tmp_path / "none.safetensors")


@pytest.mark.parametrize("decay", [0.0, 1.0, -1.0])
def test_a_decay_out_of_range_is_refused(decay):
    with pytest.raises(ValueError, match=r"must be between 0 and 1, got"):
        MovingAverage(nn.Linear(2, 2), decay)
