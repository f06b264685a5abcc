"""Export of the policy to a file that runs without this project: the same function for all agents."""

from parallel_rl.networks.export import export_policy

__all__ = ["export_policy"]
