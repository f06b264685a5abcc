"""The command line: train an agent on a Gymnasium environment, resume a run, inspect its results.

python main.py [train] [--help]          (installed: parallel-rl or python -m parallel_rl in place of python main.py)
python main.py {tune,resume,evaluate,record,watch,plot,export,envs} [--help]
python main.py {ddpg,td3,sac,her-ddpg,her-td3,her-sac}-{train,test} ENV [--help]

In bash, `source <(./main.py --tyro-print-completion bash)` turns on tab completion for `./main.py`.
"""

import gc
import sys
import warnings
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

from parallel_rl.agents import AGENTS
from parallel_rl.commands.arguments import check_resume
from parallel_rl.commands.completion import complete
from parallel_rl.commands.envs import envs
from parallel_rl.commands.output import EXPECTED, silence, stdout_is_closed
from parallel_rl.commands.parsing import UsageError, check_flags, flags_with_defaults, gathered, parsed
from parallel_rl.commands.play import evaluate, export, record, watch
from parallel_rl.commands.plot import plot
from parallel_rl.commands.program import DISTRIBUTION, NAME, version
from parallel_rl.commands.pyrl import COMMANDS as PYRL_COMMANDS
from parallel_rl.commands.train import resume, train
from parallel_rl.commands.tune import tune

USAGE, INTERRUPTED, UNHEARD = 2, 130, 141
"""Exit codes after a `UsageError`, after Ctrl-C and after a closed pipe: the usual one, 128 + SIGINT, 128 + SIGPIPE."""
COMMANDS: dict[str, Callable[..., int]] = {
    "resume": resume,
    "evaluate": evaluate,
    "record": record,
    "watch": watch,
    "plot": plot,
    "export": export,
    "envs": envs,
    "list-envs": envs,
}
"""Those whose arguments are parsed from the signatures of the functions."""
SELF_PARSED: dict[str, Callable[[Sequence[str]], int]] = {"train": train, "tune": tune}
"""Those that parse their arguments themselves: the defaults depend on the agent and the environment."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; return the exit code."""
    try:
        code = _run(sys.argv[1:] if arguments is None else list(arguments))
        if sys.stdout is not None:  # it is None if the descriptor was closed from the start
            sys.stdout.flush()
        return code
    except KeyboardInterrupt as interrupt:
        return interrupt.args[0] if interrupt.args else INTERRUPTED
    except EXPECTED as error:
        if isinstance(error, BrokenPipeError) and stdout_is_closed():
            silence(1)  # otherwise the interpreter reports that it cannot flush
            return UNHEARD
        if sys.flags.dev_mode:
            raise
        print(f"error: {error}", file=sys.stderr)
        return USAGE if isinstance(error, UsageError) else 1


def _run(arguments: list[str]) -> int:
    if arguments and arguments[0].startswith("--tyro-"):
        return complete(COMMANDS, arguments)
    if arguments == ["--version"]:
        print(f"{DISTRIBUTION} {version()}")
        return 0
    if not arguments or arguments[0].startswith("-"):
        arguments = ["train", *arguments]
    name, *rest = arguments
    if name in COMMANDS:
        prog, flags = f"{NAME} {name}", flags_with_defaults(COMMANDS[name])
        if name == "resume":
            check_resume(rest, flags)
        check_flags(rest, flags, prog)
        return parsed(COMMANDS[name], prog, gathered(rest))()
    parsing = SELF_PARSED | PYRL_COMMANDS
    if name not in parsing:
        known = [*COMMANDS, *parsing]
        near = [full for full in known if full.startswith(name)] or get_close_matches(name, known, 1, 0.7)
        main = ", ".join(["train", "tune", *(command for command in COMMANDS if command != "list-envs")])
        hint = f"did you mean {near[0]!r}?" if near else f"there are {main}"
        if name.endswith("-train") and (agent := name.removesuffix("-train")) in AGENTS:  # pyrl has no such command
            hint = f"did you mean 'train --agent {agent}'?"
        raise ValueError(f"no command {name!r}; {hint}")
    return parsing[name](rest)


def run() -> NoReturn:
    """Run the command line of this process and exit."""
    sys.path.append("")  # modules in the current directory, for --env-id MODULE:ID; last, so that they hide no other
    if not sys.flags.dev_mode:
        warnings.formatwarning = _one_line
    code = main()
    gc.freeze()  # before it exits, the interpreter would search all objects of torch for garbage: half a second
    sys.exit(code)


def _one_line(message: Warning | str, *_: Any, **__: Any) -> str:
    """Format a warning without its location in the code, which only -X dev shows."""
    return f"warning: {message}\n"


if __name__ == "__main__":
    run()
