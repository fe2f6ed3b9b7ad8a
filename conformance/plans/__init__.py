"""One plan for each op, one module per family."""

from . import (
    activation,
    activation_backward,
    conv,
    conv_backward,
    embedding,
    embedding_backward,
    gradient,
    linear,
    linear_backward,
    loss,
    loss_backward,
    norm,
    norm_backward,
    optimizer,
    packing,
    primitives,
    residual,
    residual_backward,
    rotation,
    sampling,
    scan,
    scan_backward,
    ssd_chunk,
    ssd_chunk_backward,
    transform,
)
from .plan import Plan

PLANS: dict[str, Plan] = (
    activation.PLANS
    | activation_backward.PLANS
    | conv.PLANS
    | conv_backward.PLANS
    | embedding.PLANS
    | embedding_backward.PLANS
    | gradient.PLANS
    | linear.PLANS
    | linear_backward.PLANS
    | loss.PLANS
    | loss_backward.PLANS
    | norm.PLANS
    | norm_backward.PLANS
    | optimizer.PLANS
    | packing.PLANS
    | primitives.PLANS
    | residual.PLANS
    | residual_backward.PLANS
    | rotation.PLANS
    | sampling.PLANS
    | scan.PLANS
    | scan_backward.PLANS
    | ssd_chunk.PLANS
    | ssd_chunk_backward.PLANS
    | transform.PLANS
)
