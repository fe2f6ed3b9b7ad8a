"""The ops a second time, on Python's unbounded integers: slow, and unable to overflow.

A backend like any other: ``mamba-integer conform --backend unbounded`` holds the golden NumPy against it.
"""

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
from .transform import *

# Integers without a width are slow: the suite takes fewer cases, each of about so many elements.
interpreted = 2048
