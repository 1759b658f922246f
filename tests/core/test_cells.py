"""Text from outside: formulas are disarmed and numbers are not; HTML and links of a name do nothing in Markdown."""

import pytest

from seremo_jax.core.cells import disarmed, one_line


@pytest.mark.parametrize(
    "text",
    [
        '=HYPERLINK("http://x.org")', "+1+cmd|'/C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r\n=1", " =1", "＝1", "-",
        "-rec.wav", "+0.5 [=1, 2]", "-1e5x",
    ],
)  # fmt: skip
def test_formulas_are_disarmed(text):
    assert disarmed(text) == f"'{text}"


@pytest.mark.parametrize(
    "value",
    [
        "-1.5",
        "+3",
        "-1e-05",
        "-.5",
        "-inf",
        "+0.055 [-0.040, 0.071]",
        "-0.1 ± 0.02",
        "-0.1 0.2 -3",
        "a=b",
        "1001_DFA",
        "",
        -1.5,
        None,
    ],
)
def test_numbers_and_names_stay(value):
    assert disarmed(value) == value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<script>x</script>", "&lt;script>x&lt;/script>"),
        ("\\<img src=x>", "\\&lt;img src=x>"),
        ("<!-- x", "&lt;!-- x"),
        ("![x](http://x.org/p.png)", "![x]&#40;http://x.org/p.png)"),
        ("a\n# b\u2028c", "a # b c"),
        ("p < 0.001 [0.1, 0.2] (a) & 1 <2", "p < 0.001 [0.1, 0.2] (a) & 1 <2"),
    ],
)
def test_markdown_of_outside_does_nothing(text, expected):
    assert one_line(text) == expected
