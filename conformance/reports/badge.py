"""A badge: the JSON of which shields.io makes one (its endpoint format)."""

import json
from typing import Any

from mamba_integer import spec

from ..report import Report
from ..vectors.core import CORE, MANIFEST
from .known import counts


def badge(report: Report) -> dict[str, Any]:
    """Return the number of ops that pass on the worst backend, the specification's version and the core's root."""
    fewest = min(counts(report).values(), default=0)
    root = json.loads((CORE / MANIFEST).read_bytes())["root"]
    whole = fewest == len(spec.OPS) and report.exit_code == 0
    color = "brightgreen" if whole else "yellow" if fewest and not report.unequal else "red"
    stopped = "interrupted after " if report.interrupted else ""
    message = f"{stopped}{fewest} of {len(spec.OPS)} ops, spec {spec.SPEC_VERSION}, root {root[:8]}"
    return {"schemaVersion": 1, "label": "mamba-integer", "message": message, "color": color}
