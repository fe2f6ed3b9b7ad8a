"""Plans of ``spec.ops.embedding_backward``."""

from .plan import Plan

PLANS: dict[str, Plan] = {}
