"""Constants of the ops, computed offline by integers alone: the same bits on every machine, correctly rounded."""

from .decay import hippo_decays, hippo_exponents
from .rotation import Rotation, eighth_turn, rotation_coefficients, twiddles

__all__ = ["Rotation", "eighth_turn", "hippo_decays", "hippo_exponents", "rotation_coefficients", "twiddles"]
