"""Plans of ``spec.ops.norm_backward``."""

from .plan import Plan

PLANS: dict[str, Plan] = {}
