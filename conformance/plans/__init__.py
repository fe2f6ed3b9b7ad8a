"""One plan for each op, one module a family."""

from . import activation, primitives, rotation, transform
from .plan import Plan

PLANS: dict[str, Plan] = activation.PLANS | primitives.PLANS | rotation.PLANS | transform.PLANS
