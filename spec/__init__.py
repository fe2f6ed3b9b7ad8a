"""The specification: the integers of every op, as plain NumPy. Needs NumPy and Numba alone."""

from . import bounds, integers, philox, tables
from .bounds import Interval, Width
from .contract import OPS, DomainError, Op, UnknownOpError, find_op, implements, trusted_values
from .ops import *
from .version import SPEC_VERSION
