"""The device of networks."""

import torch


def found_device(device: str) -> str:
    """Return the device that networks can be on; `auto` is cuda if torch finds a GPU, else cpu.

    Raises:
        ValueError: torch does not know the device, or does not find it.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(device).type
    except RuntimeError:
        raise ValueError(f"device must be auto or one that torch knows, such as cpu or cuda, not {device!r}") from None
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device={device!r}, but torch finds no GPU")
    return device
