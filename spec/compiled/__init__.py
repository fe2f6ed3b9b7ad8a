"""The compiled twins: the golden ops in Numba, the same names and integers, fast.

They may be called from several Python threads, and in forked children; see `threads`. Importing them raises ImportError
while NUMBA_DISABLE_JIT is set.
"""

from contextlib import AbstractContextManager

from ..arrays import NUMPY as ARRAYS
from .activation import *
from .activation_backward import *
from .conv import *
from .conv_backward import *
from .embedding import *
from .embedding_backward import *
from .gradient import *
from .linear import *
from .linear_backward import *
from .loss import *
from .loss_backward import *
from .norm import *
from .norm_backward import *
from .optimizer import *
from .packing import *
from .primitives import *
from .residual import *
from .residual_backward import *
from .rotation import *
from .sampling import *
from .scan import *
from .scan_backward import *
from .ssd_chunk import *
from .ssd_chunk_backward import *
from .threads import spreading_from
from .transform import *


def variants(op: str) -> tuple[str, ...]:
    """Return the names of the paths that small arrays of an op don't take by themselves: of each op the same."""
    return ("parallel",)


def variant(name: str) -> AbstractContextManager[None]:
    """Return a context in which arrays of any size take the paths of a variant."""
    return {"parallel": spreading_from}[name](0)
