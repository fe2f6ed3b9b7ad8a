"""Programs in any language as backends: JSON lines on their stdin and stdout. See ``conformance/PROTOCOL.md``."""

from .ops import ProgramOps
from .process import Program, ProgramError
from .wire import WireError
