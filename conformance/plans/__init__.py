"""One plan for each op, one module a family."""

from . import (
    activation,
    conv,
    embedding,
    linear,
    loss,
    norm,
    packing,
    primitives,
    residual,
    rotation,
    sampling,
    scan,
    transform,
)
from .plan import Plan

PLANS: dict[str, Plan] = (
    activation.PLANS
    | conv.PLANS
    | embedding.PLANS
    | linear.PLANS
    | loss.PLANS
    | norm.PLANS
    | packing.PLANS
    | primitives.PLANS
    | residual.PLANS
    | rotation.PLANS
    | sampling.PLANS
    | scan.PLANS
    | transform.PLANS
)
