"""Triton versions of ``spec.ops.embedding_backward``."""

__all__: list[str] = []
