"""The package works from a wheel; every module of spec needs NumPy and Numba alone; imports point one way."""

import ast
import os
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = ["spec", "backends", "conformance"]


def modules(layer: str) -> list[Path]:
    return sorted((ROOT / layer).rglob("*.py"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory, run_process) -> Path:
    target = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(target), str(ROOT)]
    done = run_process(command)
    assert done.code == 0, done.err[-2000:]
    return next(target.glob("*.whl"))


def test_wheel_has_every_module(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for layer in LAYERS:
        for module in modules(layer):
            assert f"mamba_integer/{module.relative_to(ROOT)}" in names, f"{module} is not in the wheel"


def test_every_module_of_spec_needs_numpy_and_numba_alone(wheel, run_process, tmp_path):
    venv.create(tmp_path / "venv", with_pip=False)
    site = next((tmp_path / "venv").rglob("site-packages"))
    zipfile.ZipFile(wheel).extractall(site)
    here = Path(next(p for p in sys.path if p.endswith("site-packages")))
    for needed in ("numpy", "numpy.libs", "numba", "llvmlite", "llvmlite.libs"):  # and nothing else
        if (here / needed).exists():
            (site / needed).symlink_to(here / needed)
    modules_of_spec = [".".join(m.relative_to(ROOT).with_suffix("").parts) for m in modules("spec")]
    code = f"""
import importlib, sys
import numpy as np
for module in {modules_of_spec}:
    importlib.import_module("mamba_integer." + module.removesuffix(".__init__"))
from mamba_integer import spec
from mamba_integer.spec import compiled
x = np.array([256], np.int16)
assert spec.squareplus(x, f=8, offset=0)[0] == compiled.squareplus(x, f=8, offset=0)[0] == 414
print(spec.__file__)
"""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment["NUMBA_CACHE_DIR"] = str(tmp_path / "cache")
    done = run_process([tmp_path / "venv/bin/python", "-c", code], cwd=tmp_path, env=environment)
    assert done.code == 0, done.err[-2000:]
    assert str(site) in done.out


@pytest.mark.parametrize("layer", LAYERS)
def test_imports_point_one_way(layer):
    above = LAYERS[LAYERS.index(layer) + 1 :]
    for module in modules(layer):
        for node in ast.walk(ast.parse(module.read_text())):
            name = (node.module or "") if isinstance(node, ast.ImportFrom) and not node.level else ""
            for higher in above:
                assert not name.startswith(f"mamba_integer.{higher}"), f"{module} imports {name}"


def test_an_editable_install_is_a_plain_path_entry():
    """Type checkers and editors follow a path entry; they don't follow an import hook."""
    for layer in LAYERS:
        assert (ROOT / ".ci/editable/mamba_integer" / layer).resolve() == ROOT / layer


def test_no_file_of_code_is_long():
    root = Path(__file__).parents[1]
    folders = ("spec", "backends", "conformance", "benchmarks", "tests")
    lengths = {path: path.read_text().count("\n") for folder in folders for path in (root / folder).rglob("*.py")}
    assert len(lengths) > 400 and [str(path) for path, length in lengths.items() if length > 450] == []
