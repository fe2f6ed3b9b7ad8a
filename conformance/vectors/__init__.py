"""Vectors: calls of ops with their numbers and right results, in files for whoever can't be asked through a pipe."""
