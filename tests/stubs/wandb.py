"""Stands for the library of this name, which the documentation's examples use: takes any call."""

from unittest.mock import MagicMock


def __getattr__(name: str) -> MagicMock:
    return MagicMock(name=name)
