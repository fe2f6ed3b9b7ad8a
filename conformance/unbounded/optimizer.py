"""``spec.ops.optimizer`` on unbounded integers."""

__all__: list[str] = []
