"""The ops a second time, on Python's unbounded integers: slow, and unable to overflow.

A backend like any other: ``mamba-integer conform --backend unbounded`` holds the golden NumPy against it.
"""

from .activation import *
from .conv import *
from .embedding import *
from .linear import *
from .loss import *
from .norm import *
from .packing import *
from .primitives import *
from .residual import *
from .rotation import *
from .sampling import *
from .scan import *
from .transform import *
