"""Names of targets, and what is said of those that do not exist."""

import pytest

from seremo_jax.sweeps import targets


@pytest.mark.parametrize(
    ("name", "layout"),
    [("v5e:2x4", (2, 4)), ("v5p:2x2x2", (2, 2, 2)), ("H100", (1, 1)), ("h100:8", (1, 8)), ("h200:4x8", (4, 8))],
)
def test_a_name_has_a_layout(name, layout):
    assert targets.parse(name).layout == layout


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("v5e:3x5", "there are v5e:1x1, v5e:2x2"),
        ("v5e", "there are v5e:1x1"),
        ("v5p:2x4", "there are v5p:2x2x1"),
        ("h10", "did you mean h100?"),
        ("tpu", "Known are v4:"),
        ("h100:8y", "h100:8 for 8 of one host"),
        ("h100:0", "h100:8 for 8 of one host"),
        ("h100:2x2x2", "h100:8 for 8 of one host"),
    ],
)
def test_a_wrong_name_lists_the_good_ones(name, words):
    with pytest.raises(targets.TargetError, match="--target=") as raised:
        targets.parse(name)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("name", "extra"), [("v5e:2x4", "aot-tpu"), ("h100", "aot-cuda")])
def test_a_missing_compiler_is_named_with_its_extra(name, extra, monkeypatch):
    monkeypatch.setattr(targets.importlib.util, "find_spec", lambda module: None)
    with pytest.raises(targets.TargetError, match=extra):
        targets.require_compiler(targets.parse(name))


def test_the_description_of_a_gpu_has_every_figure():
    for kind in ("a100", "h100", "h200"):
        text, figures = targets.device_info(kind), targets.FIGURES[kind]
        assert f"device_memory_size: {figures.memory_bytes:.0f}" in text
        assert text.count("{") == text.count("}")
    assert "ACCELERATED" in targets.device_info("h100")
    assert "ACCELERATED" not in targets.device_info("a100")


def test_a_gpu_keeps_some_memory_back():
    """As much as launchers leave to CUDA."""
    gpu, tpu = targets.parse("h100"), targets.parse("v5e:2x4")
    assert gpu.usable_bytes < gpu.figures.memory_bytes
    assert tpu.usable_bytes == tpu.figures.memory_bytes
