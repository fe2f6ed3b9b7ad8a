"""The conformance suite: proves that a backend returns the specification's integers, or shows where it doesn't."""
