"""The commands of a provider, who runs a model for others, and of an auditor: commit, open, audit."""

import hashlib
import json
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import typer

from mamba_integer.spec.model.generation import LAST_STREAM, PREFILL, WHOLE, Options, inverse_temperature, share
from mamba_integer.spec.model.scoring import CHUNK, show
from mamba_integer.spec.training import Options as TrainingOptions

from ..escapes import escaped
from ..files.text import decode_text, read_text
from ..files.tokenizer import ByteTokenizer, Tokenizer, load_tokenizer, tokenizer_hash
from ..transcripts.audit import Audit, audit
from ..transcripts.errors import AlteredError, CountError, RequestError, TranscriptError
from ..transcripts.folder import Transcript, read_transcript
from ..transcripts.header import Header, flat, parse_hash
from ..transcripts.leaf import STATE, Leaf, Place
from ..transcripts.opening import opening_path, save_opening
from ..transcripts.recorder import BY_OP, LEAVES
from ..transcripts.request import MOST_CALLS, Generate, Request, Score, Train
from ..transcripts.run import Build, Replay, commit
from .arguments import DRAWING, refuse
from .main import EQUAL, MISMATCH
from .opening import DEFAULT_MODEL, BackendName, InitSeed, Model, TokenizerFile, backend_name, config_of, find_model
from .outputs import check_output_folder, new_folder, output_file
from .reading import TrainText, TranscriptFolder, build_reading, build_training, corpus_of, origin_of, training_id
from .terminal import (
    Device,
    Json,
    UsageError,
    counted,
    find_backend,
    progress_bar,
)

ERRORS = (TranscriptError,)
NONCE_BYTES = 16
EVERY = 64
GENERATION, TRAINING = ("max_tokens", "greedy", *DRAWING), ("steps", "batch", "length")
IDLE = {  # options that have no effect on a kind of run
    "--prompt": TRAINING,
    "--score": (*GENERATION, *TRAINING),
    "--train": ("init_seed", *(option for option in GENERATION if option != "seed")),
}

LeafName = Annotated[str, typer.Option("--leaf", help="Leaf as dispute names it: CALL.LAYER.OP.")]


def commit_command(
    context: typer.Context,
    out: Annotated[Path, typer.Argument(help="New or empty folder for the transcript.", callback=new_folder)],
    model: Model = DEFAULT_MODEL,
    init_seed: InitSeed = 0,
    tokenizer: TokenizerFile = None,
    prompt: Annotated[str | None, typer.Option(help="Write text after this prompt.")] = None,
    score: Annotated[Path | None, typer.Option(help="Score this text file instead.")] = None,
    train: Annotated[
        list[Path] | None,
        typer.Option(help="Train a fresh model of the config --model on this text instead. May be repeated."),
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=0, help="Number of tokens to write.")] = 64,
    greedy: Annotated[bool, typer.Option("--greedy", help="Take the likeliest token each time.")] = False,
    temperature: Annotated[str, typer.Option(help="Decimal by which the logits are divided.")] = "1",
    top_k: Annotated[int, typer.Option(min=1, max=WHOLE, help="Draw from this many tokens at most.")] = WHOLE,
    top_p: Annotated[str, typer.Option(help="Draw from the likeliest tokens of this probability in all.")] = "1",
    seed: Annotated[int, typer.Option(min=0, max=2**64 - 1, help="Seed of the draws, or of the training run.")] = 0,
    stream: Annotated[int, typer.Option(min=0, max=LAST_STREAM, help="Random stream of the draws.")] = 0,
    steps: Annotated[int, typer.Option(min=1, help="Number of training steps.")] = 8,
    batch: Annotated[int, typer.Option(min=1, help="Number of sequences per training step.")] = 4,
    length: Annotated[int, typer.Option(min=1, help="Number of tokens per sequence.")] = 64,
    every: Annotated[
        int, typer.Option(min=1, max=MOST_CALLS, help="Number of calls between two saved states.")
    ] = EVERY,
    leaves: Annotated[
        str, typer.Option(help="op: a leaf per op, which a referee can settle. layer: one per layer, which is quicker.")
    ] = BY_OP,
    backend: BackendName = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Run a generation, a scoring or a training run, and commit to it: write its transcript and print its root.

    The root is one SHA-256 over every call of every op. The same request has the same root on every backend.
    """
    kinds = [kind for kind, given in zip(IDLE, (prompt is not None, score, train), strict=True) if given]
    if len(kinds) != 1:
        raise UsageError("commit: found none or several of --prompt, --score and --train, allowed one of them")
    refuse(context, kinds[0], *IDLE[kinds[0]])
    if greedy:
        refuse(context, "--greedy", *DRAWING)
    if prompt == "":
        raise UsageError("--prompt: found no text, allowed a prompt of one character or more")
    if leaves not in LEAVES:
        raise UsageError(f"--leaves: found {leaves!r}, allowed {' or '.join(LEAVES)}")
    if train:
        config = config_of("--model", model, "where --train is given")
        chosen = load_tokenizer(tokenizer) if tokenizer else ByteTokenizer()
        with corpus_of(train, chosen) as corpus:
            warmup = min(TrainingOptions.warmup, steps - 1)
            options = TrainingOptions(steps=steps, batch=batch, length=length, seed=seed, warmup=warmup)
            with named(kinds[0]):
                training = Train(config, options, corpus.sha256, tokenizer_hash(chosen))
            corpus.check(length)
            made = Header(training_id(training), training, leaves, every)
            run_and_write(out, made, build_training(training, corpus), chosen, backend, device, as_json)
        return
    held = find_model(model, init_seed, tokenizer)
    request: Request
    if score:
        text = read_text(score)
        with named(kinds[0]):
            request = Score(tuple(held.tokenizer.encode(text)), CHUNK)
    else:
        ids = held.tokenizer.encode(decode_text("--prompt", os.fsencode(prompt or "")))
        drawing = (greedy, seed, stream, inverse_temperature(temperature), top_k, share(top_p))
        with named(kinds[0]):
            request = Generate(tuple(ids), Options(max_tokens, *drawing), PREFILL)
    made = Header(held.checkpoint.sha256, request, leaves, every)
    run_and_write(out, made, build_reading(request, held.checkpoint), held.tokenizer, backend, device, as_json)


@contextmanager
def named(kind: str) -> Iterator[None]:
    """Name the option from which a request is made that describes no run."""
    try:
        yield
    except (CountError, RequestError) as error:
        raise UsageError(f"{kind}: {str(error).removeprefix('request: ')}") from error


def run_and_write(
    out: Path,
    header: Header,
    build: Build,
    tokenizer: Tokenizer,
    backend: str | None,
    device: str | None,
    as_json: bool,
) -> None:
    chosen = find_backend(backend_name(backend), device)
    started = time.monotonic()
    with progress_bar(as_json) as bar:
        task = bar.add_task("commit", total=header.request.calls)
        root = commit(out, header, chosen, build, lambda calls: bar.update(task, completed=calls))
    seconds = time.monotonic() - started
    transcript = read_transcript(out)
    about = about_run(transcript, tokenizer)
    if as_json:
        where = {"backend": chosen.name, "device": chosen.device, "seconds": round(seconds, 3)}
        print(json.dumps({"root": root.hex(), "out": str(out)} | about | where))
    else:
        leaves = about["leaf_count"]
        amount = f"{counted(about['calls'], 'call')}, {leaves:,} {'leaf' if leaves == 1 else 'leaves'}"
        print(escaped(f"{out}: {amount}, root {root.hex()}"))


def about_run(transcript: Transcript, tokenizer: Tokenizer) -> dict[str, Any]:
    """Return the request and the result of a transcript's run as the transcript states them, unchecked."""
    header = transcript.header
    fields: dict[str, Any] = {
        "kind": header.request.kind,
        "model_sha256": header.model_sha256,
        "calls": transcript.calls,
        "leaf_count": len(transcript.entries),
        "leaves": header.leaves,
        "result": transcript.result,
    }
    request = header.request.to_dict()
    if not isinstance(header.request, Train):
        ids = request.pop("ids" if isinstance(header.request, Score) else "prompt")
        text = tokenizer.decode(ids)
        fields["usual_tokens"] = tokenizer.encode(text) == ids
        if isinstance(header.request, Generate):
            fields |= {"prompt": text, "text": tokenizer.decode(transcript.result)}
        else:
            fields |= {"text_sha256": hashlib.sha256(text.encode()).hexdigest(), "tokens": len(ids)}
    return fields | {"request": request}


def about_text(about: dict[str, Any]) -> str:
    """Return lines by which a customer sees whether the run is the one that was asked for."""
    request = {name: value for name, value in flat("", about["request"]) if name != "kind"}
    lines = [f"request: {about['kind']}, " + ", ".join(f"{name} {value}" for name, value in request.items())]
    if "text_sha256" in about:
        lines.append(f"scored text: SHA-256 {about['text_sha256']}, {counted(about['tokens'], 'token')}")
    if not about.get("usual_tokens", True):
        lines.append("the text was cut into tokens in another way than the tokenizer does")
    if "prompt" in about:
        lines.append(f"prompt {about['prompt']!r}, text {about['text']!r}")
    return "\n".join(lines)


def open_command(
    context: typer.Context,
    transcript: TranscriptFolder,
    leaf: LeafName,
    out: Annotated[
        Path | None, typer.Option(help="File to write. Default: in the transcript's openings.", callback=output_file)
    ] = None,
    model: Model = DEFAULT_MODEL,
    init_seed: InitSeed = 0,
    tokenizer: TokenizerFile = None,
    train: TrainText = None,
    backend: BackendName = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Open one leaf of your own transcript for a referee: write its op, its arrays and its path to the root."""
    held, place = read_transcript(transcript), parse_place(leaf)
    path = out or opening_path(transcript, place)
    if out is None:
        check_output_folder("--out", path.parent)
    with origin_of(context, held.header, model, init_seed, tokenizer, train) as origin:
        replay = Replay(held.header, find_backend(backend_name(backend), device), origin.build)
        made = leaf_at(replay, held, place)
    save_opening(path, held, made, replay.store)
    if as_json:
        print(json.dumps({"out": str(path), "leaf": leaf, "where": made.where, "sha256": made.digest.hex()}))
    else:
        print(escaped(f"{path}: {made.where}, leaf {made.digest.hex()}"))


def parse_place(text: str) -> Place:
    numbers = text.split(".")
    if len(numbers) != 3 or not all(n.isascii() and n.isdigit() and len(n) < 10 for n in numbers):
        raise UsageError(f"--leaf: found {text!r}, allowed CALL.LAYER.OP, such as 12.1.4")
    return Place(*map(int, numbers))


def leaf_at(replay: Replay, transcript: Transcript, place: Place) -> Leaf:
    """Return a leaf of a transcript with its arrays, by running its stretch again up to its call."""
    if transcript.header.leaves != BY_OP:
        raise UsageError(f"{transcript.folder}: found leaves per layer, allowed leaves per op (commit --leaves op)")
    if place.call >= transcript.calls:
        raise UsageError(f"--leaf: found call {place.call}, allowed 0 to {transcript.calls - 1}")
    start = place.call - place.call % transcript.header.every
    state = replay.state_before(transcript, start)
    calls = range(start, place.call + 1)
    with progress_bar() as bar:
        *_, (_, made, _) = bar.track(replay.leaves(state, calls), total=len(calls), description="open")
    leaf = next((one for one in made if one.place == place), None)
    if leaf is None or leaf.call.op == STATE:
        raise UsageError(f"--leaf: found no op at layer {place.segment}, op {place.op} of call {place.call}")
    if dict(transcript.leaves(range(place.call, place.call + 1)))[place] != leaf.digest:
        raise TranscriptError(
            f"{transcript.folder}: {leaf.where}: this backend gives another leaf than the committed one; open it on "
            "the backend that made it"
        )
    return leaf


def audit_command(
    context: typer.Context,
    transcript: TranscriptFolder,
    count: Annotated[int, typer.Option("--count", "-k", min=0, help="Number of stretches beside the first one.")] = 16,
    nonce: Annotated[
        str | None,
        typer.Option(
            help="At least 32 hex digits by which stretches are drawn, unknown to anybody when the run was committed. "
            "Default: fresh random ones."
        ),
    ] = None,
    root: Annotated[str | None, typer.Option(help="Root that was published; another one is refused.")] = None,
    model: Model = DEFAULT_MODEL,
    init_seed: InitSeed = 0,
    tokenizer: TokenizerFile = None,
    train: TrainText = None,
    backend: BackendName = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Audit a transcript: draw stretches of the run, run them again, and compare every leaf.

    A stretch is the calls between two saved states. The first is always run again, because a false prompt or false
    weights show there. Exit code 0: every leaf was equal, 1: one differs, 2: a usage error or a damaged transcript.
    """
    held = read_transcript(transcript)
    if root is not None and parse_hash("--root", root) != held.root:
        raise AlteredError(f"{transcript}: root: found {held.root.hex()}, allowed {root}, the published one")
    drawn_by = parse_nonce(nonce) if nonce is not None else secrets.token_bytes(NONCE_BYTES)
    with origin_of(context, held.header, model, init_seed, tokenizer, train) as origin, progress_bar(as_json) as bar:
        replay = Replay(held.header, find_backend(backend_name(backend), device), origin.build)
        task = bar.add_task("audit", total=None)
        verdict = audit(held, replay, drawn_by, count, lambda n, all: bar.update(task, completed=n, total=all))
    about = about_run(held, origin.tokenizer)
    if as_json:
        print(json.dumps(audit_fields(held, verdict, drawn_by) | about))
    else:
        print(escaped(f"{audit_text(held, verdict)}\n{about_text(about)}", "\n"))
    raise typer.Exit(EQUAL if verdict.accepted else MISMATCH)


def parse_nonce(text: str) -> bytes:
    try:
        nonce = bytes.fromhex(text)
    except ValueError:
        raise UsageError(f"--nonce: found {text!r:.80}, allowed pairs of hex digits") from None
    if len(nonce) < NONCE_BYTES:  # whoever commits could try runs until none of the few draws shows the lie
        raise UsageError(f"--nonce: found {2 * len(nonce)} hex digits, allowed {2 * NONCE_BYTES} or more")
    return nonce


def audit_fields(transcript: Transcript, verdict: Audit, nonce: bytes) -> dict[str, Any]:
    return {
        "accepted": verdict.accepted,
        "root": transcript.root.hex(),
        "nonce": nonce.hex(),
        "stretches": verdict.stretches,
        "audited": verdict.audited,
        "calls_repeated": verdict.calls,
        "chance_of_one": rounded_down(verdict.chance_of_one, 4),
        "chance_of_tenth": rounded_down(verdict.chance_of_tenth, 4),
        "difference": difference_text(verdict),
    }


def difference_text(verdict: Audit) -> str:
    difference = verdict.difference
    if difference is None:
        return ""
    where = difference.leaf.where if difference.leaf else f"leaf {difference.place.name}"
    return f"{where}: {difference.says}"


def audit_text(transcript: Transcript, verdict: Audit) -> str:
    if not verdict.accepted:
        return f"FALSE: {difference_text(verdict)}"
    many = f"{len(verdict.audited)} of {verdict.stretches} stretches, {verdict.calls} of {transcript.calls} calls"
    return f"accepted: root {transcript.root.hex()}\nran again: {many}; every leaf is equal\n{chances_text(verdict)}"


def chances_text(verdict: Audit) -> str:
    """Return in words how likely an audit finds a false stretch."""
    if len(verdict.audited) == verdict.stretches:
        return "every stretch was run again, so this audit would have found any false one"
    if not verdict.drawn:
        return "only the first stretch was run again, so this audit says nothing of the others; -k draws more"
    one, tenth = (rounded_down(100 * chance, 1) for chance in (verdict.chance_of_one, verdict.chance_of_tenth))
    return (
        f"had one stretch been false, this audit would have found it with a probability of at least {one} %; had a "
        f"tenth of them been false, of at least {tenth} %"
    )


def rounded_down(chance: Fraction, digits: int) -> str:
    """Return a chance as a decimal; one that is less than certain never looks certain."""
    unit = 10**digits
    return show(Fraction(int(chance * unit), unit), digits)


def attach(app: typer.Typer) -> None:
    """Add the commands for transcripts to a command line."""
    for name, command, example in (
        ("commit", commit_command, "transcript --model tiny --prompt 'It was' --max-tokens 64 --backend torch"),
        ("open", open_command, "transcript --leaf 12.1.4 --model tiny"),
        ("audit", audit_command, "transcript --model tiny -k 16"),
    ):
        app.command(name, epilog=f"Example: mamba-integer {name} {example}")(command)
