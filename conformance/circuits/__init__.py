"""Rank-1 constraint systems of the ops: their golden code, run on wires in place of integers."""
