"""Arguments and options that a command can't use: each is refused, and none is passed over."""

import difflib
import re
import shlex
from collections.abc import Callable, Container, Iterable
from os.path import exists, isfile, join  # which are false for a long text, where Path raises OSError
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from mamba_integer import spec
from mamba_integer.spec.contract import find_op
from mamba_integer.spec.describe import LEADING_SIZE
from mamba_integer.spec.model import CONFIGS

from ..files.folder import MODEL_FILE, TRAINED
from ..protocol import COMMAND, declared
from ..stopping import MOST_SECONDS
from .outputs import check_apart, shown
from .terminal import UsageError

PROMPT = "--prompt"
MOST_ROWS = 2**31 - 1
LEAST_SECONDS = 0.1
ASSIGNMENT = r"([A-Za-z]\w*)=(-?[0-9]{1,40})"
DRAWING = ("temperature", "top_k", "top_p", "seed", "stream")  # the options by which tokens are drawn

# The options that an argument without one may be meant for, by its look: the first that the command has.
LIKELY: tuple[tuple[Callable[[str], Any], tuple[str, ...]], ...] = (
    (lambda text: text in spec.OPS, ("--op",)),
    (lambda text: re.fullmatch(ASSIGNMENT, text), ("--at", "--size")),
    (lambda text: text in (*TRAINED, *CONFIGS) or exists(join(text, MODEL_FILE)), ("--model", "--config")),
    (lambda text: re.fullmatch(r"cpu|cuda(:[0-9]+)?", text), ("--device",)),
    (lambda text: text in declared() or re.match(rf"{COMMAND}|[\w.]+:\w+$", text), ("--backend",)),
    (lambda text: isfile(text), ("--file", "--text", "--score", "--train")),
    (lambda text: difflib.get_close_matches(text, spec.OPS), ("--op",)),
    (lambda text: True, (PROMPT,)),
)


class Command(TyperCommand):
    """A command that refuses arguments that it doesn't take, and names the options that they are meant for."""

    allow_extra_args = True  # so that Typer leaves their refusal to this class

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            self.refuse_empty(ctx, args)
            extra = super().parse_args(ctx, args)
        except Exception as error:
            if getattr(error, "ctx", ctx) is None:
                error.ctx = ctx  # type: ignore[attr-defined]  # so that the message names the help of this command
            if told := wrong_value(error):
                raise told from error
            raise
        if not extra:
            check_apart(ctx)
            return extra
        own = [shown(param) for param in self.params if param.param_type_name == "argument"]
        prompt = ctx.params.get("prompt") or ()
        begun = [prompt] if isinstance(prompt, str) else prompt[-1:]
        hint = meant(extra, {flag for param in self.params for flag in param.opts}, *begun)
        allowed = f"no argument after {' '.join(own)}" if own else "no argument"
        way_out = f"did you mean {hint}?" if hint else f"see {ctx.command_path} --help"
        raise UsageError(f"{ctx.info_name}: found {shlex.join(extra)}, allowed {allowed}; {way_out}")

    def refuse_empty(self, ctx: Any, args: list[str]) -> None:
        """Refuse an empty value, such as a script's variable without one: it would ask for something else unnoticed.

        A prompt may be empty, and so may an option that is empty by default.
        """
        written, _, params = self.make_parser(ctx).parse_args(args=list(args))
        for param in params:
            value = written.get(param.name or "")
            values = value if isinstance(value, list | tuple) else [value]
            if PROMPT in param.opts or param.default == "" or "" not in values:
                continue
            name, way_out = shown(param), "" if param.required else f", or leave {param.opts[0]} out"
            raise UsageError(f"{name}: found an empty text, allowed one character or more; give a value{way_out}")


def wrong_value(error: Exception) -> UsageError | None:
    """Return an error that shows a wrong value, which Pydantic, where Typer has it, keeps to itself."""
    param, details = getattr(error, "param", None), getattr(error.__cause__, "errors", None)
    if not param or not details:
        return None
    detail = details()[0]
    allowed = detail["msg"].removeprefix("Input should be ").partition(",")[0]
    return UsageError(f"{param.opts[0]}: found {detail['input']!r}, allowed {allowed}")


class Group(TyperGroup):
    """A group of commands that refuses an unknown name, and says which command is meant."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name = args[0]
        if name.startswith("-") or name in self.commands:
            return super().resolve_command(ctx, args)
        near = difflib.get_close_matches(name, self.commands, 1)
        if "ops" in self.commands and name in spec.OPS:
            near = [f"ops --op {name}"]
        hint = f"; did you mean {ctx.command_path} {near[0]}?" if near else ""
        raise UsageError(f"found the command {name!r}, allowed {', '.join(self.commands)}{hint}")


def check_arguments(app: typer.Typer) -> None:
    """Let every command of an application check its arguments so."""
    app.info.cls = Group
    for command in app.registered_commands:
        command.cls = Command
    for group in app.registered_groups:
        if group.typer_instance:
            check_arguments(group.typer_instance)


def refuse(context: typer.Context, beside: str, *names: str) -> None:
    """Refuse options that the user gave although ``beside`` leaves them without effect; defaults don't count."""
    for param in context.command.params:
        source = context.get_parameter_source(param.name) if param.name in names else None
        if source and source.name == "COMMANDLINE":
            raise UsageError(f"{param.opts[0]}: found beside {beside}, which leaves it without effect; leave one out")


def time_limit(parameter: typer.CallbackParam, seconds: float) -> float:
    """Return an option's time limit, as its callback; one that no timer takes is refused, and so is no number."""
    if not LEAST_SECONDS <= seconds <= MOST_SECONDS:
        raise UsageError(
            f"{parameter.opts[0]}: found {seconds:g}, allowed {LEAST_SECONDS:g} to {MOST_SECONDS:,} seconds"
        )
    return seconds


def chosen_ops(names: Iterable[str] | None) -> list[str]:
    """Return the ops that options name, each once, or all ops where none is named."""
    return list(dict.fromkeys(find_op(name).name for name in names or ())) or list(spec.OPS)


def assignments(option: str, texts: Iterable[str]) -> dict[str, int]:
    """Return the names and integers of an option that is given several times; a name given twice is refused."""
    values: dict[str, int] = {}
    for name, value in (assignment(option, text) for text in texts):
        if name in values:
            found = f"found {name}={value} after {name}={values[name]}"
            raise UsageError(f"{option}: {found}, allowed each name once; leave one out")
        values[name] = value
    return values


def assignment(option: str, text: str) -> tuple[str, int]:
    """Return the name and the integer of an option's NAME=INTEGER."""
    written = re.fullmatch(ASSIGNMENT, text)
    if not written:
        raise UsageError(f"{option}: found {text!r:.80}, allowed NAME=INTEGER, such as k=15")
    name, value = written[1], int(written[2])
    if name == LEADING_SIZE and not 0 <= value <= MOST_ROWS:
        raise UsageError(f"{option}: found {text!r}, allowed 0 to {MOST_ROWS} rows")
    return name, value


def meant(extra: Iterable[str], flags: Container[str], *begun: str) -> str:
    """Return the options that arguments are meant for, as a shell takes them, or "" if one is meant for none.

    A prompt may have ``begun`` before the blank at which the shell has cut it.
    """
    hints, words = [], []
    for text in extra:
        likely = (flag for looks_so, options in LIKELY if looks_so(text) for flag in options)
        flag = next((flag for flag in likely if flag in flags), "")
        if not flag:
            return ""
        if flag == PROMPT:
            words.append(text)
        else:
            hints.append(f"{flag} {shlex.quote(text)}")
    if words:
        hints.append(f"{PROMPT} {shlex.quote(' '.join([*begun, *words]))}")
    return " ".join(hints)
