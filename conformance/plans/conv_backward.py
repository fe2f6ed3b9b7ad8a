"""Plans of ``spec.ops.conv_backward``."""

from .plan import Plan

PLANS: dict[str, Plan] = {}
