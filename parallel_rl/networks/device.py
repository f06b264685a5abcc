"""The device of networks."""

import torch


def check_device(device: str | torch.device) -> None:
    """Check that networks can be on a device.

    Raises:
        ValueError: torch does not know the device, or does not find it.
    """
    try:
        found = torch.device(device)
    except RuntimeError:
        raise ValueError(f"device must be one that torch knows, such as 'cpu' or 'cuda', not {device!r}") from None
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device={device!r}, but torch finds no GPU")
