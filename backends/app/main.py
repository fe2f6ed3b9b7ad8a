"""The command line. Exit codes: 0 success, 1 a mismatch or something missing, 2 a usage error.

Other packages add commands through the entry-point group ``mamba_integer.commands``: each entry is a function that is
given the Typer application.
"""

import os
import sys
from importlib.metadata import entry_points

import typer

from mamba_integer.spec.contract import UnknownOpError

from ..protocol import BackendError
from . import model_commands, ops_command, train_commands
from .terminal import EQUAL, INTERRUPTED, USAGE, UsageError

COMMANDS = "mamba_integer.commands"

app = typer.Typer(
    name="mamba-integer",
    help="Integer state-space models, and implementations held against their specification: no tolerance.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
for extension in sorted(entry_points(group=COMMANDS), key=lambda point: point.name):
    extension.load()(app)
ops_command.attach(app)
model_commands.attach(app)
train_commands.attach(app)


def main() -> None:
    """Run the command line; every error is one line on stderr."""
    try:
        code = app(standalone_mode=False)
    except (UsageError, UnknownOpError, BackendError, *model_commands.ERRORS, *train_commands.ERRORS) as error:
        code = _complain(str(error))
    except BrokenPipeError:  # the reader of our output has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = EQUAL
    except OSError as error:
        code = _complain(f"{error.filename or 'input or output'}: {error.strerror or error}")
    except (typer.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except BaseException as error:  # SystemExit too: code 0 is for a verdict, not for a backend that gives up
        # Typer's own errors have this method, whichever version of click they come from.
        own = getattr(error, "format_message", None)
        code = _complain(own() if own else f"internal error: {type(error).__name__}: {error}")
    sys.exit(code or 0)


def _complain(message: str) -> int:
    if message:
        print(f"mamba-integer: {' '.join(message.split())}", file=sys.stderr)
    return USAGE
