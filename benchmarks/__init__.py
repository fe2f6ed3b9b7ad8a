"""Measured times of the ops, beside the floor that the hardware sets."""
