"""Each process lists the same cases of an op, because repeated cases, failure cards and coverpoints name them."""

import os
import subprocess
import sys

from mamba_integer.conformance.engine.generated import plans
from mamba_integer.conformance.presets import PRESETS

OPS = "norm_quantize", "bitshift_norm_backward", "ternary_linear"
CODE = """
import sys
from mamba_integer.conformance.engine.generated import plans
from mamba_integer.conformance.presets import PRESETS
for op in sys.argv[1:]:
    for one in plans(op, PRESETS["full"].line):
        print(op, one.group, one.points, one.cost)
"""


def test_listed_cases_do_not_depend_on_the_order_of_sets():
    here = [f"{op} {one.group} {one.points} {one.cost}" for op in OPS for one in plans(op, PRESETS["full"].line)]
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", CODE, *OPS]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)
        assert done.stdout.splitlines() == here
