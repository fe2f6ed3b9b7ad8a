"""The ops in PyTorch: eager integer arithmetic on a CPU or a CUDA device.

Two modules are for users of PyTorch and are imported by name: `custom_ops` registers every op in
``torch.ops.mamba_integer``, and `module` has the language model as an ``nn.Module``.
"""

from .activation import *
from .activation_backward import *
from .arrays import ARRAYS, concatenate, default_device, from_numpy, to_numpy
from .conv import *
from .conv_backward import *
from .decoding import decode
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
