"""Devices that a user names."""

import pytest
import torch

from rocbert_hf.torch_device import checked_device, device_for


def test_a_device_that_torch_knows_is_given_back():
    assert checked_device("cpu") == "cpu"
    assert checked_device(None) is None


def test_a_device_that_torch_cannot_use_is_one_clear_line():
    with pytest.raises(
        ValueError, match="device must be one that torch can use here, such as cpu, got 'abacus'"
    ) as error:
        checked_device("abacus")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("there_is_a_gpu", "device"), [(True, "cuda"), (False, "cpu")])
def test_without_a_name_a_gpu_is_taken_if_there_is_one(monkeypatch, there_is_a_gpu, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there_is_a_gpu)
    assert device_for(None) == device
    assert device_for("meta") == "meta"
