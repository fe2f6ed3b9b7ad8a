"""Plans of ``spec.ops.gradient``."""

from .plan import Plan

PLANS: dict[str, Plan] = {}
