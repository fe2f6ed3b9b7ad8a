"""Plans of ``spec.ops.activation_backward``."""

from .plan import Plan

PLANS: dict[str, Plan] = {}
