"""The golden ops, one module a family. Importing this package registers every op in ``contract.OPS``."""

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
