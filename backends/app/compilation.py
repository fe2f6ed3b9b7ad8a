"""A note that Numba compiles kernels; apart, because only the commands that use Numba should import it."""

import sys

from numba.core import event

from .main import warn


class Compilation(event.Listener):
    """Tells whoever waits at a terminal that Numba compiles kernels; it says so once."""

    told = False

    def on_start(self, event: event.Event) -> None:
        if not self.told and sys.stderr.isatty():
            self.told = True
            warn("note: compiling kernels for this machine, seconds to minutes; later starts read them from a cache")

    def on_end(self, event: event.Event) -> None:
        pass


COMPILATION = Compilation()


def announce() -> None:
    event.register("numba:compile", COMPILATION)
