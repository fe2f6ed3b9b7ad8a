"""Each process lists the same cases of an op, because repeated cases, failure cards and coverpoints name them."""

import ast
import os
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec, resolve_name
from pathlib import Path
from random import Random

import numpy as np
import pytest

from mamba_integer import spec
from mamba_integer.conformance.engine import case_cache, generated, patterns
from mamba_integer.conformance.engine.case_cache import Listing
from mamba_integer.conformance.engine.cases import draw_case, extreme_cases
from mamba_integer.spec import philox
from mamba_integer.spec.compiled.philox import _stream_words

OPS = "norm_quantize", "bitshift_norm_backward", "ternary_linear"
CODE = """
import sys
from pathlib import Path
from mamba_integer.conformance.engine import case_cache
from mamba_integer.conformance.engine.generated import listed_cases, listing_of
from mamba_integer.conformance.presets import PRESETS
case_cache.FOLDER = Path(sys.argv[1])
cached = []
for op in sys.argv[2:]:
    listing = listing_of(op, PRESETS["smoke"].line)
    for one in listing.plans:
        print(op, one.group, one.points, one.cost)
    cached.append(listing.written)
    for one, case in listed_cases(op, PRESETS["smoke"]):
        print(one.points, case and case.to_json())
print(*cached)
"""


def listed_with(seed: str, folder: Path) -> tuple[list[str], list[str]]:
    """Return what a process lists, and of how many cases of each op it read the file."""
    environment = os.environ | {"PYTHONHASHSEED": seed}
    command = [sys.executable, "-c", CODE, str(folder), *OPS]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)
    *lines, cached = done.stdout.splitlines()
    return lines, cached.split()


def test_listed_cases_depend_on_neither_the_order_of_sets_nor_the_cache(tmp_path: Path):
    cold, none = listed_with("1", tmp_path / "first")
    warm, several = listed_with("2", tmp_path / "first")
    other, _ = listed_with("2", tmp_path / "second")
    assert none == ["0"] * len(OPS) and all(int(cached) > 10 for cached in several)
    assert len(cold) > 1000 and warm == cold and other == cold


@pytest.fixture
def folder(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setattr(case_cache, "FOLDER", tmp_path)
    return tmp_path


def listing() -> Listing:
    return Listing("isqrt", 6, generated.plans)


def saved(*positions: int) -> Path:
    """Return the file of a listing of which some cases are made."""
    made = listing()
    for position in positions:
        made.plans[position].make()
    made.save()
    assert case_cache.FOLDER
    return case_cache.FOLDER / made.name


def test_a_case_is_read_as_it_was_made(folder: Path):
    saved(*range(20))
    made = [one.make() for one in generated.plans("isqrt", 6)[:20]]
    read = listing()
    assert read.written == 20 and [one.make() for one in read.plans[:20]] == made and any(made)
    assert [(one.group, one.points, one.cost) for one in read.plans] == [
        (one.group, one.points, one.cost) for one in generated.plans("isqrt", 6)
    ]


def test_files_of_several_processes_add_up(folder: Path):
    first, second = listing(), listing()
    first.plans[0].make(), second.plans[1].make()
    first.save(), second.save()
    assert set(listing().cases) == {0, 1}


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:-1],
        lambda content: content.partition(b"\n")[2],
        lambda content: content.replace(b'"seed":', b'"seed":1', 1),
        lambda content: b"0" * 64 + content[64:],
    ],
    ids=["empty", "cut", "without its hashes", "another seed", "of other sources"],
)
def test_a_file_that_is_damaged_or_stale_is_made_anew(folder: Path, damage):
    path = saved(0, 1)
    right = path.read_bytes()
    path.write_bytes(damage(right))
    assert path.read_bytes() != right and not listing().cases
    assert saved(0, 1).read_bytes() == right


def test_a_changed_source_makes_files_stale(folder: Path, monkeypatch):
    saved(0)
    source = folder / "rule.py"
    source.write_text("LIMIT = 7\n")
    monkeypatch.setattr(case_cache, "SOURCES", (source,))
    hashes = []
    for limit in (7, 8):
        source.write_text(f"LIMIT = {limit}\n")
        case_cache.deciding_hash.cache_clear()
        hashes.append(case_cache.deciding_hash())
        assert not listing().cases
    monkeypatch.undo()
    case_cache.deciding_hash.cache_clear()
    assert len({*hashes, case_cache.deciding_hash()}) == 3


def test_nothing_is_written_where_no_folder_can_be(tmp_path: Path, monkeypatch):
    file = tmp_path / "file"
    file.touch()
    for folder in (None, file / "inside"):
        monkeypatch.setattr(case_cache, "FOLDER", folder)
        made = listing()
        assert not made.cases and made.plans[0].make()
        made.save()
    assert list(tmp_path.iterdir()) == [file]


def test_a_case_of_another_golden_op_is_not_kept(folder: Path, monkeypatch):
    made = listing()
    monkeypatch.setattr(spec.OPS["isqrt"], "golden", lambda v: (v ^ 1).astype(np.int32))
    assert made.plans[0].make() and not made.cases


def test_a_case_has_the_same_arrays_whichever_twin_draws_them(monkeypatch):
    cases = [case for op in OPS for case, _ in zip(extreme_cases(op), range(20), strict=False)]
    cases += [draw_case(op, Random(2)) for op in OPS]
    drawn = []
    for left in (1 << 60, 0):
        monkeypatch.setattr(patterns, "_left", left)
        patterns.kept_words.cache_clear()
        drawn.append([replace(case).arrays for case in cases])
        words = patterns.random_words((1 << 64) - 3, (1 << 32) + 7, 70_001)
        assert words.dtype == np.uint64 and np.array_equal(
            words, philox.random_words((1 << 64) - 3, (1 << 32) + 7, 70_001)
        )
    for numpy, numba in zip(*drawn, strict=True):
        assert all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in zip(numpy, numba, strict=True))


@pytest.mark.skipif(not _stream_words.stats.cache_path, reason="Numba finds no folder for its kernels")
def test_cases_lie_beside_the_kernels(tmp_path: Path, monkeypatch):
    beside = case_cache.kernels_folder()
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    named = case_cache.kernels_folder()
    assert beside and named and beside.samefile(named)


def imported(module: str) -> set[str]:
    """Return the modules of the project that a module's source names in its imports."""
    place = find_spec(module)
    assert place and place.origin
    package = module if place.submodule_search_locations else module.rpartition(".")[0]
    names = set()
    for node in ast.walk(ast.parse(Path(place.origin).read_text())):
        if isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), package)
            names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return {name for name in names if name.startswith("mamba_integer.") and is_module(name)}


def is_module(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def test_each_source_that_may_decide_a_case_is_hashed():
    """Of backends the listing uses files, and the class that the engine calls: neither decides a case."""
    known, waiting = set(), {generated.__name__}
    while waiting:
        known |= (now := waiting)
        waiting = {name for module in now for name in imported(module)} - known
        waiting = {name for name in waiting if not name.startswith("mamba_integer.backends")}
    sources = [Path(str(find_spec(name).origin)).resolve() for name in known]
    roots = [root.resolve() for root in case_cache.SOURCES]
    assert len(sources) > 50
    assert [path for path in sources if not any(path.is_relative_to(root) for root in roots)] == []
