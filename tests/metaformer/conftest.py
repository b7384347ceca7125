"""What holds for the tests of the models."""

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Small tensors are faster on one thread, and several test runs share a machine."""
    torch.set_num_threads(1)
