"""Tests of one op run in one process, where its listed cases are searched and its golden results computed once."""

from pathlib import Path

import pytest

from mamba_integer import spec

HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)  # pytest-xdist then looks for the groups
def pytest_collection_modifyitems(items):
    for item in items:
        callspec = getattr(item, "callspec", None)
        op = callspec.params.get("op") if callspec and item.path.is_relative_to(HERE) else None
        if op in spec.OPS:
            item.add_marker(pytest.mark.xdist_group(op))
