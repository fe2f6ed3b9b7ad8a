"""Disputes about a run: the first op on which two transcripts differ, run again by the golden code."""
