"""Plans of ``spec.ops.scan_backward``."""

from .plan import Plan

PLANS: dict[str, Plan] = {}
