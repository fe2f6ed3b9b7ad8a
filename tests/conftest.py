"""Commands as tests run them: in this process, or in processes that can neither hang a test nor outlive it."""

import atexit
import contextlib
import functools
import gc
import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.forking import Fork, Nursery

# Read when Torch, Numba or NumPy starts its threads. The tests share the processors: a thread that waits should not
# spin. Those of NumPy do so whatever they are told, for float products, which no integer needs.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
USUAL = dict(os.environ)  # before a test or a library changes any


@pytest.hookimpl(tryfirst=True)  # pytest-xdist then looks for the groups
def pytest_collection_modifyitems(items):
    """Run the tests of a file in one process, where what they share is made once, unless they are grouped otherwise."""
    for item in items:
        if not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))


def pytest_collection_finish():
    """Spare the garbage collector what lives as long as the tests do: it would look through all of it many times."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


LONGEST_WAIT = 300  # seconds: much, for a busy machine; then a process is killed with all that it started

# A test run may have been started with signals ignored (nohup, a background job), which children inherit.
DEFAULTS = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "[signal.signal(number, signal.SIG_DFL) for number in (signal.SIGTERM, signal.SIGHUP)]"
)
COMMAND = f"{DEFAULTS}; from mamba_integer.backends.app.main import main; main()"


# A process beside the tests: when they end, even by a kill, it reads the end of its input and kills what they left.
REAPER = """
import contextlib, os, signal, sys
groups = set()
for line in sys.stdin:
    (groups.add if line[0] == "+" else groups.discard)(int(line[1:]))
for group in groups:
    with contextlib.suppress(OSError):
        os.killpg(group, signal.SIGKILL)
"""


@functools.cache
def reaper() -> subprocess.Popen:
    process = subprocess.Popen([sys.executable, "-c", REAPER], stdin=subprocess.PIPE, text=True, start_new_session=True)
    atexit.register(process.communicate, timeout=LONGEST_WAIT)
    return process


def tell_reaper(line: str) -> None:
    pipe = reaper().stdin
    pipe.write(f"{line}\n")
    pipe.flush()


class Done(NamedTuple):
    """A command that ended."""

    code: int
    out: str
    err: str

    def json(self):
        """Return the last line of stdout of a command that succeeded, as JSON."""
        assert self.code == 0, self.err
        return json.loads(self.out.splitlines()[-1])


@contextlib.contextmanager
def started(command, seconds: float = LONGEST_WAIT, **options) -> Iterator[subprocess.Popen]:
    """Start a process in a group of its own; kill the group after ``seconds``, and at the end of the block."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
    with guarded(
        subprocess.Popen([*map(str, command)], text=True, start_new_session=True, **(pipes | options)), seconds
    ) as process:
        yield process


@contextlib.contextmanager
def guarded(process: subprocess.Popen | Fork, seconds: float) -> Iterator[subprocess.Popen | Fork]:
    """Kill a process' group after ``seconds``, and at the end of the block."""
    tell_reaper(f"+{process.pid}")
    guard = threading.Timer(seconds, kill_group, [process])
    guard.start()
    try:
        yield process
    finally:
        guard.cancel()
        kill_group(process)
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream:
                stream.close()
        process.wait()
        tell_reaper(f"-{process.pid}")


@functools.cache
def nursery() -> Nursery:
    nursery = Nursery(DEFAULTS, USUAL)
    atexit.register(nursery.end)
    return nursery


@contextlib.contextmanager
def started_command(*arguments, fresh=False, seconds: float = LONGEST_WAIT, env=None, cwd=".", **options):
    """Start ``mamba-integer`` as `started` does: by a fork, which is quicker, where that makes no difference."""
    variables = dict(env or os.environ)
    if fresh or options or nursery().refused(variables):
        command = [sys.executable, "-c", COMMAND, *arguments]
        with started(command, seconds, env=variables, cwd=cwd, **options) as process:
            yield process
    else:
        with guarded(nursery().start([*map(str, arguments)], variables, cwd), seconds) as process:
            yield process


def kill_group(process: subprocess.Popen | Fork) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture(scope="session")
def start_process():
    """A function that starts a process as `started` does: ``with start_process(command) as process:``."""
    return started


@pytest.fixture(scope="session")
def run_process():
    """A function that runs a process to its end: ``run_process(command).code``."""

    return lambda *arguments, **options: outcome(started(*arguments, **options))


def outcome(starting) -> Done:
    with starting as process:
        out, err = process.communicate()
    return Done(process.returncode, out or "", err or "")


@pytest.fixture(scope="session")
def start_cli():
    """A function that starts ``mamba-integer`` with arguments, as `start_process`."""
    return started_command


@pytest.fixture(scope="session")
def run_cli():
    """A function that runs ``mamba-integer`` with arguments in a process of its own, to its end."""
    return lambda *arguments, **options: outcome(started_command(*arguments, **options))


@pytest.fixture(autouse=True)
def signals():
    """Put back what a command does to this process: the handlers of signals."""
    usual = dict.fromkeys((signal.SIGTERM, signal.SIGHUP, signal.SIGALRM), signal.SIG_DFL)
    usual[signal.SIGINT] = signal.default_int_handler  # as above: the run itself may ignore some
    before, hook = {number: signal.signal(number, handler) for number, handler in usual.items()}, sys.unraisablehook
    yield
    sys.unraisablehook = hook
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def cli(monkeypatch, capsys):
    """A function that runs ``mamba-integer`` with arguments in this process, which is quicker."""
    from mamba_integer.backends.app.main import main

    def run(*arguments, stdin: bytes = b"") -> Done:
        monkeypatch.setattr(sys, "argv", ["mamba-integer", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as exit:
            main()
        return Done(exit.value.code, *capsys.readouterr())

    return run


@pytest.fixture
def deep_tiles(monkeypatch):
    """Let the products of interpreted kernels take long rows in few pieces: each costs as much time, however long."""
    from mamba_integer.backends.triton import linear_backward, ternary_product
    from mamba_integer.backends.triton.instructions import is_interpreted

    if is_interpreted():
        tiles = tuple((most, tile | {"BYTES": 8 * tile["BYTES"]}) for most, tile in ternary_product.TILES)
        monkeypatch.setattr(ternary_product, "TILES", tiles)
        monkeypatch.setattr(linear_backward, "BYTES", 8 * linear_backward.BYTES)
        monkeypatch.setattr(linear_backward, "DEPTH", 8 * linear_backward.DEPTH)
        monkeypatch.setattr(linear_backward, "MOST_PARTS", 1)  # then the bound of a sum alone cuts it


class Micro:
    """A run that takes a moment: two layers, six steps, one sentence."""

    TEXT = "It was the best of times, it was the worst of times, it was the age of wisdom …\n" * 12

    def __init__(self, folder):
        from mamba_integer.backends.files.corpus import prepare_corpus
        from mamba_integer.backends.files.tokenizer import ByteTokenizer
        from mamba_integer.spec.model import ModelConfig
        from mamba_integer.spec.training import Options

        sizes = {"d_model": 8, "d_inner": 16, "n_layer": 2, "nheads": 2, "headdim": 8, "dt_rank": 2}
        self.config = ModelConfig("micro", 256, mamba1_d_state=2, mamba2_d_state=4, chunk_size=4, **sizes)
        self.options = Options(steps=6, batch=3, length=8, seed=5, warmup=1)
        self.tokenizer = ByteTokenizer()
        self.golden_hashes: dict[tuple, str] = {}
        self.text = folder / "book.txt"
        self.text.write_text(self.TEXT, "utf-8")
        self.corpus = prepare_corpus([self.text], self.tokenizer, folder / "corpus")

    def training(self, options=None):
        """Return the description of the run, as its checkpoints hold it."""
        from mamba_integer.backends.files.tokenizer import tokenizer_hash
        from mamba_integer.backends.files.training import Training

        return Training(self.config, options or self.options, tokenizer_hash(self.tokenizer), self.corpus.sha256)

    def trained(self, options=None, steps=None, ops=None, **fields):
        """Return the run and its state after some steps, or after all."""
        from mamba_integer.backends import load
        from mamba_integer.spec.training import Run, initial_state, train_step

        options = options or self.options
        run = Run(self.config, options, ops or load("golden"), **fields)
        state = initial_state(run)
        for step in range(steps or options.steps):
            ids = self.corpus.batch(options.seed, step, range(options.batch), options.length)
            state, _ = train_step(run, state, ids)
        return run, state

    def hash_of(self, options=None, **fields):
        from mamba_integer.backends.files.training import training_hash

        return training_hash(self.training(options), *self.trained(options, **fields))

    def golden_hash_of(self, options=None, steps=None) -> str:
        """Return the hash of a run by the golden ops; each is computed once."""
        run = options or self.options, steps
        if run not in self.golden_hashes:
            self.golden_hashes[run] = self.hash_of(options, steps=steps)
        return self.golden_hashes[run]

    @property
    def golden_hash(self) -> str:
        """The hash of the whole run by the golden ops."""
        return self.golden_hash_of()


@pytest.fixture(scope="session")
def micro(tmp_path_factory) -> Micro:
    return Micro(tmp_path_factory.mktemp("micro"))


class Committed:
    """A small model that reads a prompt in pieces and writes a few tokens, and its honest transcript."""

    def __init__(self, config, folder):
        from mamba_integer.backends import load
        from mamba_integer.backends.files.model import Checkpoint
        from mamba_integer.backends.transcripts.folder import read_transcript
        from mamba_integer.backends.transcripts.header import Header
        from mamba_integer.backends.transcripts.request import Generate
        from mamba_integer.backends.transcripts.run import commit
        from mamba_integer.spec.model import initial_parameters
        from mamba_integer.spec.model.generation import Options

        self.config, self.parameters = config, initial_parameters(config, 0)
        self.request = Generate(tuple(b"It was the best"), Options(8, seed=3), size=6)
        self.header = Header(Checkpoint(config, self.parameters, "0" * 64).sha256, self.request, "op", 4)
        self.folder = folder / "honest"
        commit(self.folder, self.header, load("golden"), self.build)
        self.transcript = read_transcript(self.folder)

    def build(self, backend, request=None, parameters=None):
        """Return the run on a backend; a liar's has another request or other weights."""
        from mamba_integer.backends.transcripts.computation import computation_for
        from mamba_integer.spec.model import LanguageModel

        model = LanguageModel(self.config, parameters or self.parameters, backend)
        return computation_for(request or self.request, model)


@pytest.fixture(scope="session")
def small(micro, tmp_path_factory) -> Committed:
    return Committed(micro.config, tmp_path_factory.mktemp("committed"))
