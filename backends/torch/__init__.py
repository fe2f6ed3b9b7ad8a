"""The ops in PyTorch: eager integer arithmetic on a CPU or a CUDA device."""

from .activation import *
from .arrays import default_device, from_numpy, to_numpy
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
