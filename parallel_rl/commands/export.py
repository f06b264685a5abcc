"""The command `export`."""

from pathlib import Path

import tyro

from parallel_rl.agents import agent_kind
from parallel_rl.commands.build import agent_of


def export(
    run_dir: tyro.conf.Positional[Path], out: Path | None = None, best: bool = False, trust_env_module: bool = False
) -> int:
    """Write the deterministic policy as ONNX or as a torch.export program, and check that it acts as the agent does.

    Args:
        run_dir: directory of a training run.
        out: the file, .onnx or .pt2; by default policy.onnx in the run's directory.
        best: take the weights of the best evaluation during the training, not the last ones.
        trust_env_module: import the modules that the run's config.json names.
    """
    config, agent = agent_of(run_dir, best=best, trust_env_module=trust_env_module)
    export_policy = agent_kind(config.agent).export
    if export_policy is None:
        raise ValueError(f"the agent {config.agent!r} cannot be exported")
    out = out or run_dir / "policy.onnx"
    difference = export_policy(agent, out)
    print(f"exported  {out}: its actions differ from the agent's by at most {difference:.1g}")
    return 0
