"""The presets of the suite: how many cases are drawn for each op."""

PRESETS = {"minimal": 25, "full": 150}
