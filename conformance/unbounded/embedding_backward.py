"""``spec.ops.embedding_backward`` on unbounded integers."""

__all__: list[str] = []
