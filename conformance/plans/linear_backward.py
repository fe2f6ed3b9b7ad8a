"""Plans of ``spec.ops.linear_backward``."""

from .plan import Plan

PLANS: dict[str, Plan] = {}
