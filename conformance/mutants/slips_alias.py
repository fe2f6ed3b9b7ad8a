"""Slips where two inputs share memory."""
