"""``spec.ops.conv_backward`` on unbounded integers."""

__all__: list[str] = []
