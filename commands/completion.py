"""What has the tab key complete the command line."""

import io
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout

import tyro

from config import CommandLine

TRAIN_IS_LEFT_OUT = """
# Flags without a command are those of train.
_main_py() {
  if [[ $COMP_CWORD -ge 1 && ${COMP_WORDS[1]} == -* ]]; then
    COMP_WORDS=("${COMP_WORDS[0]}" train "${COMP_WORDS[@]:1}")
    COMP_CWORD=$((COMP_CWORD + 1))
  fi
  _tyro_main_py "$@"
}
complete -F _main_py main.py
"""


def complete(commands: Mapping[str, Callable[..., int]], arguments: Sequence[str]) -> int:
    """Do what flags of tyro ask for, such as `--tyro-print-completion bash`; return the exit code."""
    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            tyro.extras.subcommand_cli_from_dict({"train": CommandLine, **commands}, prog="main.py", args=arguments)
    except SystemExit as leaving:
        print(printed.getvalue(), end=TRAIN_IS_LEFT_OUT if "_tyro_main_py()" in printed.getvalue() else "")
        return int(leaving.code or 0)
    return 0
