import pytest
import torch

from xlstm_ts.errors import BackendError
from xlstm_ts.training.device import resolve_device


@pytest.mark.parametrize(("available", "expected"), [(True, "cuda"), (False, "cpu")])
def test_auto_is_cuda_where_it_is_available(monkeypatch, available, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)

    assert resolve_device("auto", "fit") == torch.device(expected)


def test_a_device_that_is_here_is_taken():
    assert resolve_device("cpu", "fit") == torch.device("cpu")


@pytest.mark.parametrize("device", ["abacus", "cuda:97", "cpu:x", "meta"])
def test_a_device_that_cannot_be_used_is_refused_with_the_remedy(device):
    with pytest.raises(BackendError) as raised:
        resolve_device(device, "Forecaster.fit")

    message = str(raised.value)
    assert message.startswith(f"Forecaster.fit: device={device!r} cannot be used here (")
    assert 'Use device="auto"' in message
    assert "\n" not in message
    assert isinstance(raised.value, RuntimeError)
