"""Plans of ``spec.ops.loss_backward``."""

from .plan import Plan

PLANS: dict[str, Plan] = {}
