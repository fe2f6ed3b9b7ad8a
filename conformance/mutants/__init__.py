"""Mutants: backends with one planted bug each, which the suite must find."""
