"""The engine: makes cases, runs them on a backend, compares every integer, shrinks and replays what differs."""
