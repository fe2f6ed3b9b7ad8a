"""Plans of ``spec.ops.residual_backward``."""

from .plan import Plan

PLANS: dict[str, Plan] = {}
