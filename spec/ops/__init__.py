"""The golden ops, one module per family. Importing this package registers every op in ``contract.OPS``."""

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
from .transform import *
