"""Answers that come back in files are explained like those of a backend that can be called."""

import numpy as np

from mamba_integer import spec
from mamba_integer.backends.app.main import main
from mamba_integer.conformance.vectors import folder, formats
from mamba_integer.conformance.vectors.recorded import explain_answers


def test_wrong_answers_in_files_get_a_diagnosis(tmp_path, monkeypatch, capsys):
    place = tmp_path / "vectors"
    folder.export(place, ["bitshift_norm"], "smoke", 0, "npy")
    for i, vector in enumerate(formats.LINES.read(place, "bitshift_norm")):
        x, gamma = vector.arrays
        flipped = spec.bitshift_norm.golden(-x, gamma, **vector.parameters)
        np.save(place / f"bitshift_norm/{i}/y.got.npy", flipped)
    check = folder.check(place)
    assert check.failures and check.right
    assert "line 2 of bitshift_norm.requests.jsonl" in folder.place_of("bitshift_norm", 0)
    explanation = explain_answers(check.returned["bitshift_norm"])
    assert explanation is not None and explanation.mistakes[0] == "x is negated"
    assert explanation.explained == explanation.failing > 3
    monkeypatch.setattr("sys.argv", ["mamba-integer", "vectors", "check", str(place)])
    try:
        main()
    except SystemExit as end:
        assert end.code == 1
    shown = capsys.readouterr().out
    assert "looks like" in shown and "x is negated" in shown and "answers of bitshift_norm are wrong" in shown
    assert "mamba-integer compare" not in shown, "a folder is no backend that could be called again"
