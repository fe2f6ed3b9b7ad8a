"""One plan for each op, one module a family."""

from . import activation, primitives, rotation
from .plan import Plan

PLANS: dict[str, Plan] = activation.PLANS | primitives.PLANS | rotation.PLANS
