"""Compiled kernels load or say why not, and survive Python threads and forks."""

import os
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from mamba_integer.spec.compiled import threads

SECONDS = 120

THREADED = """
import threading
import numpy as np
from mamba_integer import spec
from mamba_integer.spec import compiled

x = np.arange(-40000, 40000, dtype=np.int32)
want = spec.saturate.golden(x, bits=16)
wrong = []

def work():
    for _ in range(50):
        if not np.array_equal(compiled.saturate(x, bits=16), want):
            wrong.append(1)

pool = [threading.Thread(target=work) for _ in range(4)]
for thread in pool:
    thread.start()
for thread in pool:
    thread.join()
print("wrong" if wrong else "equal")
"""

FORKED = """
import os
import numpy as np
from mamba_integer import spec
from mamba_integer.spec import compiled

x = np.arange(-40000, 40000, dtype=np.int32)
want = spec.saturate.golden(x, bits=16)
compiled.saturate(x, bits=16)
if (child := os.fork()) == 0:
    os._exit(0 if np.array_equal(compiled.saturate(x, bits=16), want) else 3)
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print("equal" if code == 0 and np.array_equal(compiled.saturate(x, bits=16), want) else f"child ended with {code}")
"""

INTERRUPTED = """
import os, signal, threading
from collections import Counter
import numpy as np
from mamba_integer.spec import compiled
from mamba_integer.spec.compiled import threads

x = np.ones((100, 1000), np.int16)
signal.signal(signal.SIGINT, signal.default_int_handler)
seen = Counter()
with threads.spreading_from({elements}):
    compiled.quantize_rows(x)
    for turn in range(100):
        timer = threading.Timer(0.001 + turn * 1e-5, os.kill, [os.getpid(), signal.SIGINT])
        try:
            timer.start()
            while True:
                compiled.quantize_rows(x)
        except BaseException as error:
            seen[type(error).__name__] += 1
        timer.join()
print(*seen)
"""

WAITING = """
import os
import numpy as np
from mamba_integer.spec import compiled

before = dict(os.environ)
compiled.saturate(np.arange(100000, dtype=np.int32), bits=16)
print("the same" if dict(os.environ) == before else "changed")
"""


def run(code, base=os.environ, **environment):
    environment = base | {"NUMBA_NUM_THREADS": "2"} | environment
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=SECONDS
    )


@pytest.mark.parametrize("layer", ["workqueue", "omp"])
@pytest.mark.parametrize("code", [THREADED, FORKED], ids=["threads", "fork"])
def test_threads_and_forks_end_no_process(code, layer):
    done = run(code, NUMBA_THREADING_LAYER=layer)
    assert (done.returncode, done.stdout) == (0, "equal\n"), done.stderr


@pytest.mark.parametrize("chosen", ["", "ACTIVE"])
def test_threads_sleep_while_they_wait_unless_the_user_chose(chosen):
    others = {name: value for name, value in os.environ.items() if name != threads.WAITING}
    policy = {threads.WAITING: chosen} if chosen else {}
    done = run(WAITING, others | policy, NUMBA_THREADING_LAYER="omp", OMP_DISPLAY_ENV="true")
    assert (done.returncode, done.stdout) == (0, "the same\n"), done.stderr
    assert f"OMP_WAIT_POLICY = '{chosen or threads.ASLEEP}'" in done.stderr


@pytest.mark.parametrize("elements", [0, 1 << 62], ids=threads.VERSIONS[::-1])
def test_an_interrupt_in_a_kernel_is_an_interrupt(elements):
    """Numba ends the call with a SystemError, which a command would report as an internal error."""
    done = run(INTERRUPTED.format(elements=elements))
    assert (done.returncode, done.stdout) == (0, "KeyboardInterrupt\n"), done.stderr


def test_uncompiled_kernels_are_refused():
    done = run("from mamba_integer.backends import load; load('numba')", NUMBA_DISABLE_JIT="1")
    assert done.returncode == 1
    assert "BackendError: backend 'numba' can't be loaded: NUMBA_DISABLE_JIT is set." in done.stderr.splitlines()[-1]


def double(x):
    return 2 * x


@pytest.mark.parametrize("lightness", [1 / 8, 1, 8])
def test_threads_wake_for_so_many_elements_of_a_kernel(lightness, monkeypatch):
    monkeypatch.setattr(threads, "RUNS", Counter())
    kernel = threads.spread(double, lightness)
    versions = [(f"{double.__module__}.{double.__name__}", version) for version in threads.VERSIONS]
    with threads.spreading_from(64):
        for size in (int(64 * lightness) - 1, int(64 * lightness)):
            assert kernel(np.ones(size, np.int32)).sum() == 2 * size
    assert [threads.RUNS[version] for version in versions] == [1, 1]
    with threads.spreading_from(0):
        kernel(np.ones(0, np.int32))
    assert [threads.RUNS[version] for version in versions] == [1, 2]
