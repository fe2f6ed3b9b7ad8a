"""Plans of ``spec.ops.optimizer``."""

from .plan import Plan

PLANS: dict[str, Plan] = {}
