"""One plan for each op, one module a family."""

from . import activation, conv, primitives, rotation, transform
from .plan import Plan

PLANS: dict[str, Plan] = activation.PLANS | conv.PLANS | primitives.PLANS | rotation.PLANS | transform.PLANS
