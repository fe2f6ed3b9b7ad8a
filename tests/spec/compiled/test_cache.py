"""Kernels are kept on disk, and run where that fails: a cache is a matter of speed alone."""

import errno
import importlib
import os
import pkgutil
import warnings
from types import FunctionType

import numba
import numpy as np
import pytest
from numba.core import caching
from numba.core.dispatcher import Dispatcher

from mamba_integer.spec import compiled
from mamba_integer.spec.compiled import cache


def double(x):
    return 2 * x


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder that Numba is told to keep kernels in; each test is warned anew."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    cache.warn_of_cache.cache_clear()
    cache.warn_of_no_cache.cache_clear()
    return tmp_path


def doubled():
    """Double a number by a kernel that this process hasn't loaded yet; return how often it was compiled."""
    kernel = cache.compiled(double)
    assert kernel(np.int32(21)) == 42
    return kernel.stats.cache_misses.total()


def garbage(path):
    path.write_bytes(b"garbage")


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path):
    path.write_bytes(b"")


def test_a_kernel_is_read_from_the_cache(folder):
    assert [doubled(), doubled()] == [1, 0]


@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
@pytest.mark.parametrize("damage", [garbage, cut, emptied])
def test_a_damaged_cache_is_told_once_and_made_anew(damage, suffix, folder):
    doubled()
    (path,) = folder.rglob(f"*.{suffix}")
    damage(path)
    with pytest.warns(RuntimeWarning, match="NUMBA_CACHE_DIR") as told:
        assert doubled() == 1
    assert len(told) == 1 and str(path.parent) in str(told[0].message) and "damaged" in str(told[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert doubled() == 0


def test_an_index_that_cannot_be_read_is_told_once(folder):
    """Such as another user's: a folder in its place refuses the root user too."""
    doubled()
    (path,) = folder.rglob("*.nbi")
    path.unlink()
    path.mkdir()
    with pytest.warns(RuntimeWarning, match="NUMBA_CACHE_DIR") as told:
        assert [doubled(), doubled()] == [1, 1]
    assert len(told) == 1 and str(path.parent) in str(told[0].message)


def test_a_full_disk_is_told_once(folder, monkeypatch):
    def full(old, new):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), old)

    monkeypatch.setattr(caching.os, "replace", full)
    with pytest.warns(RuntimeWarning, match="No space left.*NUMBA_CACHE_DIR") as told:
        assert [doubled(), doubled()] == [1, 1]
    assert len(told) == 1


def test_kernels_run_without_a_folder(folder, monkeypatch):
    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])
    with pytest.warns(RuntimeWarning, match="NUMBA_CACHE_DIR") as told:
        assert [doubled(), doubled()] == [1, 1]
    assert len(told) == 1


@pytest.mark.parametrize("name", [module.name for module in pkgutil.iter_modules(compiled.__path__)])
def test_kernels_that_python_calls_survive_a_damaged_cache(name):
    module = importlib.import_module(f"{compiled.__name__}.{name}")
    functions = [getattr(value, "kernel", value) for value in vars(module).values() if isinstance(value, FunctionType)]
    called = {
        word for function in functions if function.__globals__ is vars(module) for word in function.__code__.co_names
    }
    kernels = {word: vars(module)[word] for word in called if isinstance(vars(module).get(word), Dispatcher)}
    assert [word for word, kernel in kernels.items() if not isinstance(kernel._cache, cache.KernelCache)] == []
