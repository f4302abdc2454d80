"""What tests of training share."""

import pytest
import torch


@pytest.fixture
def one_thread():
    """Sums in the same order, whatever the machine; and networks this small learn three times as fast so as on four."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
