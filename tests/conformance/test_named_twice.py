"""An op or a backend that is named twice is taken once, by each command that takes several."""

import json

import pytest


@pytest.mark.parametrize("twice", [("isqrt", "isqrt", "golden"), ("isqrt", "bit_length", "numpy")])
def test_what_is_named_twice_is_tested_once(twice, cli):
    *ops, backend = twice
    named = [part for op in ops for part in ("--op", op)]
    code, out, _ = cli("conform", *named, "--backend", "golden", "--backend", backend, "--preset", "smoke", "--json")
    report = json.loads(out)
    assert code == 0 and report["complete"]
    assert [(one["op"], one["backend"]) for one in report["results"]] == [(op, "golden") for op in dict.fromkeys(ops)]


def test_an_op_named_twice_is_exported_and_shown_once(cli, tmp_path):
    named = ("--op", "isqrt", "--op", "isqrt", "--json")
    made = json.loads(cli("vectors", "export", tmp_path / "twice", *named, "--preset", "smoke").out)
    once = json.loads(cli("vectors", "export", tmp_path / "once", *named[2:], "--preset", "smoke").out)
    assert made["ops"] == 1 and made == once | {"folder": made["folder"]}
    assert list(json.loads(cli("ops", *named).out)["ops"]) == ["isqrt"]
