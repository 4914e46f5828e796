"""Which device a network runs on."""

import torch

from xlstm_ts.errors import BackendError


def resolve_device(device: str, where: str) -> torch.device:
    """Return the device of a name; "auto" is CUDA when it is available, else the CPU.

    Raises
    ------
    BackendError
        The name is unknown, or the device is not here.
    """
    if not isinstance(device, str | torch.device):
        raise BackendError(f'{where}: device={device!r} is not the name of a device. Use device="auto".')
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.zeros(1, device=device).cpu()  # "meta" can make a tensor but holds no numbers
    except (RuntimeError, AssertionError) as error:
        raise BackendError(
            f'{where}: device={device!r} cannot be used here ({str(error).splitlines()[0]}). Use device="auto", which '
            "takes CUDA when it is available and the CPU otherwise."
        ) from error
    return torch.device(device)
