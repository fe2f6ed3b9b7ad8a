"""``spec.ops.loss_backward`` on unbounded integers."""

__all__: list[str] = []
