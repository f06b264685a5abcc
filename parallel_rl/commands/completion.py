"""Tab completion of the command line in a shell."""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout

import tyro

from parallel_rl.commands.flags import command_line
from parallel_rl.commands.parsing import GROUPED
from parallel_rl.commands.program import NAME
from parallel_rl.config import DEFAULT_AGENT

FUNCTION = re.sub(r"\W", "_", NAME)

TRAIN_IS_LEFT_OUT = f"""
# Flags without a command are those of train.
_{FUNCTION}() {{
  if [[ $COMP_CWORD -ge 1 && ${{COMP_WORDS[1]}} == -* ]]; then
    COMP_WORDS=("${{COMP_WORDS[0]}}" train "${{COMP_WORDS[@]:1}}")
    COMP_CWORD=$((COMP_CWORD + 1))
  fi
  _tyro_{FUNCTION} "$@"
}}
complete -F _{FUNCTION} {NAME}
"""


def complete(commands: Mapping[str, Callable[..., int]], arguments: Sequence[str]) -> int:
    """Print a completion script, for `--tyro-print-completion bash` and the like; return the exit code."""
    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            train, tune = (command_line(DEFAULT_AGENT, tuning=tuning) for tuning in (False, True))
            tyro.extras.subcommand_cli_from_dict(
                {"train": train, "tune": tune, **commands}, prog=NAME, args=arguments, config=GROUPED
            )
    except SystemExit as leaving:
        print(printed.getvalue(), end=TRAIN_IS_LEFT_OUT if f"_tyro_{FUNCTION}()" in printed.getvalue() else "")
        return int(leaving.code or 0)
    return 0
