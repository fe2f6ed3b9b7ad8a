"""A model's folder: config.json is written, may be missing, and may not contradict the checkpoint."""

import json

import pytest

from mamba_integer.backends.files.config_file import CONFIG_FILE
from mamba_integer.backends.files.container import CheckpointError
from mamba_integer.backends.files.folder import TRAINED, fresh_model, load_model, save_model
from mamba_integer.spec.model.config import CONFIGS
from mamba_integer.spec.version import SPEC_VERSION

TINY = CONFIGS["tiny"]


@pytest.fixture
def folder(tmp_path):
    save_model(tmp_path, fresh_model(TINY, 0))
    return tmp_path


def change(folder, **fields):
    path = folder / CONFIG_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_config_json_has_the_configs_fields(folder):
    stored = json.loads((folder / CONFIG_FILE).read_text())
    assert stored == {"model_type": "mamba-integer", "spec_version": SPEC_VERSION, **TINY.to_dict()}
    assert load_model(folder).checkpoint.config == TINY


def test_config_json_may_be_missing_or_hold_more(folder):
    digest = load_model(folder).checkpoint.sha256
    change(folder, architectures=["IntegerMamba"])
    assert load_model(folder).checkpoint.sha256 == digest
    (folder / CONFIG_FILE).unlink()
    assert load_model(folder).checkpoint.sha256 == digest


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"d_model": 128}, "field d_model: found 128, the checkpoint has 64"),
        ({"rotate": 1}, "field rotate: found 1, the checkpoint has true"),
        ({"pattern": ["mamba2"]}, r"field pattern: found \[\"mamba2\"\]"),
        ({"model_type": "mamba2"}, 'field model_type: found "mamba2"'),
        ({"spec_version": "0.1.0"}, 'field spec_version: found "0.1.0"'),
    ],
)
def test_config_json_may_not_contradict(folder, fields, message):
    change(folder, **fields)
    with pytest.raises(CheckpointError, match=message) as error:
        load_model(folder / "model.safetensors")
    assert str(folder / CONFIG_FILE) in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"), [("{", "no JSON"), ("[" * 100000, "no JSON"), ("[]", "a list"), ("{}", "found nothing")]
)
def test_config_json_may_not_be_something_else(folder, text, message):
    (folder / CONFIG_FILE).write_text(text)
    with pytest.raises(CheckpointError, match=message):
        load_model(folder)


def test_packaged_models_have_a_config_json():
    for path in TRAINED.values():
        assert (path / CONFIG_FILE).exists()
        load_model(path)
