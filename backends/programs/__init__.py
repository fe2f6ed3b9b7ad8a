"""Programs in any language as backends: JSON lines on their stdin and stdout. See ``conformance/PROTOCOL.md``."""

from mamba_integer.spec.arrays import NUMPY as ARRAYS

from .ops import ProgramOps, RoomError
from .process import Program, ProgramError
from .wire import WireError
