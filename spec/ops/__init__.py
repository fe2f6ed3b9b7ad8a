"""The golden ops, one module a family. Importing this package registers every op in ``contract.OPS``."""

from .activation import *
from .conv import *
from .embedding import *
from .norm import *
from .primitives import *
from .residual import *
from .rotation import *
from .transform import *
