"""Names that look alike are found, and others are not."""

import unicodedata

import pytest

from seremo_jax.data.names import alike_names


@pytest.mark.parametrize(
    "pair",
    [
        ("S00", "s00"),
        ("José", unicodedata.normalize("NFD", "José")),
        ("ann  b", "ann b"),
        ("ann", "ann\u200b"),
        ("straße", "STRASSE"),
        ("\uff33\uff10", "S0"),
        ("12", "12.0"),
    ],
)
def test_names_that_look_alike_are_named_together(pair):
    [sentence] = alike_names(["other", *pair, *pair])
    assert sentence.endswith("are taken for 2 different names")
    first, second = sentence.removesuffix(" are taken for 2 different names").split(" and ")
    assert first != second


@pytest.mark.parametrize(
    "pair", [("S1", "S01"), ("ann", "anna"), ("1.5", "1.50"), ("é", "e"), ("a1.0", "a1"), ("x", "x")]
)
def test_names_that_differ_are_left_alone(pair):
    assert alike_names(pair) == []
