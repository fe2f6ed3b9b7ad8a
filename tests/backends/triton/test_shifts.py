"""Shifts that training changes from step to step compile no kernel again."""

import json
import os
import sys
from pathlib import Path


def test_other_shifts_compile_nothing_again(run_process):
    script = Path(__file__).with_name("compiled_again.py")
    done = run_process([sys.executable, script], env=os.environ | {"TRITON_INTERPRET": "0"})
    assert done.code == 0, done.err[-3000:]
    again = json.loads(done.out)
    assert again and not any(again.values()), again
