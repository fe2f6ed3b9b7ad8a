"""Constants of the ops, computed offline by integers alone: the same bits on every machine, correctly rounded."""

from .decay import hippo_decays

__all__ = ["hippo_decays"]
