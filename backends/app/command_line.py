"""The commands, and the errors that each of them may end with.

Other packages add commands through the entry-point group ``mamba_integer.commands``: each entry is a function that is
given the Typer application.
"""

import sys
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Annotated

import typer

from mamba_integer.spec import SPEC_VERSION
from mamba_integer.spec.contract import UnknownOpError
from mamba_integer.spec.model.generation import OptionError
from mamba_integer.spec.training import OptionsError

from ..escapes import told
from ..protocol import BackendError
from ..stopping import INTERRUPTED, exit_code
from . import generate_command, model_commands, ops_command, train_commands, transcript_commands
from .arguments import check_arguments
from .main import complain
from .terminal import UsageError

COMMANDS = "mamba_integer.commands"

app = typer.Typer(
    name="mamba-integer",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
for extension in sorted(entry_points(group=COMMANDS), key=lambda point: point.name):
    extension.load()(app)
for module in (ops_command, generate_command, model_commands, train_commands, transcript_commands):
    module.attach(app)


def show_version(wanted: bool) -> None:
    if wanted:
        print(f"mamba-integer {version('mamba-integer')}, specification {SPEC_VERSION}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the versions.")
    ] = False,
) -> None:
    """Run, train and check integer-only state-space language models. Backends are compared bit for bit."""


check_arguments(app)
command = typer.main.get_command(app)  # made once: to make it takes longer than to read arguments by it


ERRORS = (UsageError, UnknownOpError, BackendError, *train_commands.ERRORS, *transcript_commands.ERRORS)


def run() -> int:
    """Run the command that the process was started with; return its exit code."""
    try:
        code = command(prog_name="mamba-integer", standalone_mode=False) or 0
        return exit_code() if code == INTERRUPTED else code  # Typer has one code for all signals
    except (OptionError, OptionsError) as error:
        flag = f"--{error.option.replace('_', '-')}"
        return complain(f"{flag}: found {error.found!r}, allowed {error.allowed}")
    except ERRORS as error:
        return complain(str(error))
    except (ModuleNotFoundError, BrokenPipeError):
        raise
    except ImportError as error:
        if error.name:  # Python names the module of an import that fails; one that is refused has a reason alone
            return complain(f"internal error: {error}")
        return complain(str(error))
    except OSError as error:
        return complain(f"{error.filename or 'input or output'}: {error.strerror or error}{triton_way_out(error)}")
    except (typer.Abort, KeyboardInterrupt):
        return exit_code()
    except BaseException as error:  # SystemExit too: code 0 is for a verdict, not for a backend that gives up
        if isinstance(error, SystemExit) and isinstance(error.__context__, BrokenPipeError):
            raise BrokenPipeError from error  # rich ends a process so
        if isinstance(error.__cause__, KeyboardInterrupt):  # compiled code makes a SystemError of it
            return exit_code()
        # Typer's own errors have this method, whichever version of click they come from.
        usage = getattr(error, "format_message", None)
        if usage:
            message, context = usage().rstrip("."), getattr(error, "ctx", None)
            path = context.command_path if context else "mamba-integer"
            return complain(message and f"{message}; see {path} --help")  # without a message, help was shown
        return complain(f"internal error: {told(error)}")


def triton_way_out(error: OSError) -> str:
    """Name the variable of Triton's cache, where an error is of a file in it or, as on a full disk, names no file."""
    if "triton" not in sys.modules or (error.filename and ".triton" not in Path(str(error.filename)).parts):
        return ""
    return "; if this is the cache of Triton's kernels, TRITON_CACHE_DIR names another folder for it"
