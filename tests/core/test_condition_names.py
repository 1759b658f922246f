"""Ids of conditions: one form each, refusals with the remedy, what words of the config stand for."""

import re

import pytest

from seremo_jax.core import condition_names, condition_ranges
from seremo_jax.core.condition_names import Condition, ConditionError, expand, parse
from seremo_jax.core.config import Config, ConfigError, from_config_dict

PROTOCOL = {
    "noise_kinds": ("white", "babble"), "snr_db": (20.0, 0.0, 10.0), "rt60_s": (0.3, 0.6), "combined_snr_db": 10.0,
}  # fmt: skip


def ids(words, **changes) -> list[str]:
    return [condition.id for condition in expand(words, **PROTOCOL | changes)]


@pytest.mark.parametrize(
    "text",
    [
        "clean", "noise:white:10db", "noise:dog-bark:-2.5db", "babble:0db", "reverb:measured:0.6s", "telephone",
        "codec:gsm", "clipping:6db", "gain:-20db", "reverb:synthetic:0.6s+noise:pink:10db", "telephone+codec:mulaw",
    ],
)  # fmt: skip
def test_an_id_is_read_and_written_alike(text: str):
    assert parse(text).id == text
    assert parse(text) == parse(parse(text).id)


def test_one_form_only():
    assert parse("noise:white:10.0db").id == "noise:white:10db"
    assert parse("noise:white:-0db").id == "noise:white:0db"
    assert parse("reverb:synthetic:0.60s+babble:5.00db").id == "reverb:synthetic:0.6s+babble:5db"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nois:white:10db", "unknown effect 'nois'"),
        ("noise:white", "write noise:NAME:10db"),
        ("noise:white:10", "write noise:NAME:10db"),
        ("noise:white:nandb", "write noise:NAME:10db"),
        ("noise:white:1000db", "write noise:NAME:10db"),
        ("noise:white:10db:x", "write noise:NAME:10db"),
        ("noise:Wh ite:10db", "write noise:NAME:10db"),
        ("babble:pink:10db", "write babble:10db"),
        ("reverb:cellar:0.6s", "unknown reverb 'cellar'; choose one of synthetic, measured, shoebox"),
        ("reverb:synthetic:0s", "write reverb:NAME:0.6s"),
        ("telephone:8khz", "write telephone"),
        ("codec:mp3", "choose one of mulaw, gsm"),
        ("clipping:0db", "more than 0 db"),
        ("noise:white:10db+babble:5db", "noise twice"),
        ("clean+telephone", "unknown effect 'clean'"),
        ("", "unknown effect ''"),
    ],
)
def test_what_is_no_condition_is_refused_with_its_form(text: str, message: str):
    with pytest.raises(ConditionError, match=message):
        parse(text)


def test_words_stand_for_many_conditions_and_clean_comes_first():
    assert ids(["noise"]) == [
        "clean", "noise:white:20db", "noise:white:10db", "noise:white:0db", "babble:20db", "babble:10db", "babble:0db"
    ]  # fmt: skip
    assert ids(["reverb"]) == ["clean", "reverb:synthetic:0.3s", "reverb:synthetic:0.6s"]
    assert ids(["reverb"], has_responses=True)[3:] == ["reverb:measured:0.3s", "reverb:measured:0.6s"]
    assert ids(["combined"])[1:3] == ["reverb:synthetic:0.3s+noise:white:10db", "reverb:synthetic:0.3s+babble:10db"]
    assert ids(["telephone", "clean", "telephone"]) == ["clean", "telephone"]
    assert ids([]) == ["clean"]
    assert ids(["all"]) == list(dict.fromkeys(ids(["noise", "reverb", "combined", "channel"])))


def test_recordings_add_their_groups():
    steady = {"steady", "recorded", "rain"}
    assert "noise:steady:10db" in ids(["noise"], recorded_kinds=steady)
    assert "noise:events:10db" not in ids(["noise"], recorded_kinds=steady)
    assert "noise:recorded:10db" in ids(["noise"], recorded_kinds={"recorded"})
    assert ids(["noise:rain:3db"], recorded_kinds=steady)[1:] == ["noise:rain:3db"]


def test_what_is_not_there_is_refused():
    with pytest.raises(ConditionError, match=r"no recordings of 'rain'; there are none \(eval.noise_dir is not set\)"):
        ids(["noise:rain:3db"])
    with pytest.raises(ConditionError, match="no recordings of 'rain'; there are recorded, traffic"):
        ids(["noise:rain:3db"], recorded_kinds={"recorded", "traffic"})
    with pytest.raises(ConditionError, match=r"set eval.rir_dir .* or write reverb:synthetic:0.6s"):
        ids(["reverb:measured:0.6s"])


def test_families_and_parts():
    assert [parse(text).family for text in ("clean", "babble:0db", "reverb:measured:0.3s", "codec:gsm")] == [
        "clean", "noise", "reverb", "channel"
    ]  # fmt: skip
    both = parse("reverb:measured:0.3s+babble:5db")
    assert both.family == "combined"
    assert (both.noise.name, both.noise.value, both.room.name, both.room.value) == ("babble", 5.0, "measured", 0.3)
    assert (Condition().noise, Condition().room) == (None, None)
    assert ":" not in both.file_name


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("conditions", ("noisy",), "eval.conditions has 'noisy'.*family: noise, reverb, combined, channel, all"),
        ("noise_kinds", ("pink noise",), "eval.noise_kinds has 'pink noise'"),
        ("rt60_s", (0.0,), "eval.rt60_s has 0.0"),
        ("snr_db", (500.0,), "eval.snr_db has 500.0"),
        ("curve_snr_db", (-500.0,), "eval.curve_snr_db has -500.0"),
        ("combined_snr_db", 500.0, "eval.combined_snr_db has 500.0"),
    ],
)
def test_the_config_refuses_them_before_anything_starts(field: str, value: object, message: str):
    with pytest.raises(ConfigError, match=message):
        from_config_dict({"eval": {field: value}})


@pytest.mark.parametrize(
    ("text", "lowest", "highest"),
    [
        ("noise:rain:-5..20.5db", "noise:rain:-5db", "noise:rain:20.5db"),
        ("reverb:measured:0.2..1s+babble:0..10db", "reverb:measured:0.2s+babble:0db", "reverb:measured:1s+babble:10db"),
        ("gain:-20..-3db", "gain:-20db", "gain:-3db"),
        ("telephone+codec:gsm", "telephone+codec:gsm", "telephone+codec:gsm"),
    ],
)
def test_values_may_be_ranges_in_training(text: str, lowest: str, highest: str):
    asked = condition_ranges.parse(text)
    assert (asked.lowest, asked.highest) == (parse(lowest), parse(highest))
    if lowest != highest:
        with pytest.raises(ConditionError):
            parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("noise:rain:20..0db", r"the range 20\.\.0 runs downwards"),
        ("noise:rain:0..db", "write noise:NAME:10db"),
        ("noise:rain:0..500db", "write noise:NAME:10db"),
        ("clean", r"says train\.copy_share"),
        ("noise", "write noise:NAME:10db"),
    ],
)
def test_other_ranges_are_refused(text: str, message: str):
    with pytest.raises(ConfigError, match=rf"extract\.conditions has '{re.escape(text)}'.*{message}"):
        from_config_dict({"extract": {"conditions": (text,)}})


def test_a_level_that_the_backbone_takes_out_is_refused():
    asked = {"extract": {"conditions": ("gain:-9..0db",)}, "backbone": {"level": "rms"}}
    with pytest.raises(ConfigError, match="takes all level out again"):
        from_config_dict(asked)


def test_the_defaults_are_the_protocol_of_the_method():
    section = Config().eval
    assert section.conditions == ("clean",)
    assert section.noise_kinds == ("white", "pink", "brown", "babble")
    assert (section.snr_db, section.curve_snr_db) == ((20, 10, 0), (15, 5))
    assert (section.rt60_s, section.direct_to_tail_db, section.combined_snr_db) == ((0.3, 0.6, 0.9), 0, 10)
    assert set(condition_names.GENERATED_NOISES) | {condition_names.BABBLE} == set(section.noise_kinds)
