"""Transcripts: a run committed to one hash, so that a stranger can audit it and a referee can settle a dispute."""
