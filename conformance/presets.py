"""The presets of the suite: how many cases are drawn for each op."""

PRESETS = {"smoke": 10, "minimal": 25, "full": 150}
