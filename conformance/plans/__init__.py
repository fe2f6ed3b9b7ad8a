"""One plan for each op, one module a family."""

from . import activation, conv, embedding, norm, primitives, residual, rotation, transform
from .plan import Plan

PLANS: dict[str, Plan] = (
    activation.PLANS
    | conv.PLANS
    | embedding.PLANS
    | norm.PLANS
    | primitives.PLANS
    | residual.PLANS
    | rotation.PLANS
    | transform.PLANS
)
