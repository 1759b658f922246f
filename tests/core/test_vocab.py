"""Class sets: named ones, and those that are written out."""

import pytest

from seremo_jax.core import vocab
from seremo_jax.core.config import ConfigError, from_config_dict


def test_a_set_is_named_or_written_out():
    assert vocab.classes_of("crema6") == vocab.CLASS_SETS["crema6"]
    assert vocab.classes_of(" Anger,boredom, very calm") == ("angry", "boredom", "very calm")
    assert from_config_dict({"targets": {"class_set": "angry,boredom"}, "eval": {"nbest": (1, 2)}})


@pytest.mark.parametrize(
    ("class_set", "message"),
    [
        ("crema7", "choose one of msp8, .*or write your own"),
        ("", "choose one of"),
        ("anger,angry", "names a class twice"),
        ("angry,other", "'other' cannot be a class"),
        ("angry,other-bored", "cannot be a class"),
        ("angry,no_agreement", "cannot be a class"),
        ("angry,", "'' cannot be a class"),
        ("angry,a=b", "'a=b' cannot be a class"),
        ("angry,../x", "cannot be a class"),
    ],
)
def test_what_is_no_set_is_refused(class_set, message):
    with pytest.raises(ConfigError, match=f"targets.class_set = .*{message}"):
        from_config_dict({"targets": {"class_set": class_set}})
