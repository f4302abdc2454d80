"""Checkpointed layers: same loss, same gradients, less kept."""

import copy

import pytest
import torch
from torch import Tensor, nn

from engine.multiview.networks.gradient_checkpoints import checkpoint_layers
from tests.engine.multiview.networks.small import inputs, small_image_orbit, small_text_orbit, text_inputs

NETWORKS = [(small_text_orbit, text_inputs), (small_image_orbit, inputs)]


def gradients(network: nn.Module, given: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor], int]:
    """Return the loss, the gradients and the bytes that the forward pass kept outside of checkpointed layers."""
    kept = 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += tensor.numel() * tensor.element_size()
        return tensor

    torch.manual_seed(5)  # dropout
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        loss = network(**given).square().mean()
    network.zero_grad()
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}, kept


@pytest.mark.parametrize(("make", "given"), NETWORKS)
def test_loss_and_gradients_are_the_same_with_dropout(make, given):
    network, conditions = make().train(), given()
    loss, expected, kept = gradients(network, conditions)
    network.enable_gradient_checkpointing()
    assert network.is_gradient_checkpointing
    again, found, kept_less = gradients(network, conditions)
    assert torch.equal(loss, again)
    assert len(found) == len(list(network.parameters()))
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-5, atol=1e-7)  # float32 sums in another order
    # What passes the hook is what stands between the layers; a layer that keeps its inside would bring most back.
    assert kept_less < 0.2 * kept


def test_it_can_be_switched_off_again():
    network, given = small_text_orbit(), text_inputs()
    plain = gradients(network, given)[2]
    network.enable_gradient_checkpointing()
    network.disable_gradient_checkpointing()
    assert not network.is_gradient_checkpointing
    assert gradients(network, given)[2] == plain


def test_a_deep_copy_computes_with_its_own_weights():
    """Averages of weights are kept in copies."""
    network, given = small_text_orbit(), text_inputs()
    network.enable_gradient_checkpointing()
    twin = copy.deepcopy(network)
    with torch.no_grad():
        before = twin(**given)
        for parameter in network.parameters():
            parameter.zero_()
        assert torch.equal(twin(**given), before)
        assert not network(**given).any()


def test_state_dict_is_not_touched():
    network = small_text_orbit()
    names = set(network.state_dict())
    network.enable_gradient_checkpointing()
    assert set(network.state_dict()) == names


def test_any_module_can_be_checkpointed():
    network = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1))
    given = torch.randn(3, 4)
    expected = torch.autograd.grad(network(given).sum(), network[0].weight)[0]
    assert checkpoint_layers(network, (nn.Linear, nn.Tanh)) == 3
    assert torch.equal(torch.autograd.grad(network(given).sum(), network[0].weight)[0], expected)


def test_what_others_put_on_a_layer_still_runs():
    """accelerate's hooks replace forward on the instance too."""
    network, calls = nn.Sequential(nn.Linear(4, 4), nn.Tanh()), []
    plain = network[0].forward

    def hooked(given: Tensor) -> Tensor:
        calls.append(len(given))
        return plain(given)

    network[0].forward = hooked
    for enabled in (True, True, False):
        checkpoint_layers(network, (nn.Linear,), enabled)
        network(torch.ones(3, 4)).sum().backward()
    assert calls == [3, 3, 3, 3, 3]  # twice where it is computed again
    assert network[0].forward is hooked


def test_a_network_without_such_layers_is_refused():
    with pytest.raises(ValueError, match="Linear has no Conv2d to checkpoint; name the classes of its layers"):
        checkpoint_layers(nn.Linear(2, 2), (nn.Conv2d,))


def test_another_checkpointing_function_is_refused():
    with pytest.raises(ValueError, match="gradient_checkpointing_func is not supported"):
        small_text_orbit().enable_gradient_checkpointing(lambda *args: None)
