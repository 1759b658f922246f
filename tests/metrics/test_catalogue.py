"""The catalogue of metrics: one name a metric, its properties from its kind, and the way through a result record."""

import json
from pathlib import Path

import pytest

from seremo_jax.metrics import catalogue
from seremo_jax.metrics.catalogue import KINDS, from_json, metric


@pytest.mark.parametrize(
    ("named", "name"),
    [
        (metric("uar"), "UAR"),
        (metric("uar", 3), "3-best UAR"),
        (metric("macro_f1", 2, classes="present"), "2-best macro-F1 (present)"),
        (metric("pa_uar", 2, threshold=75, speakers="min10c2"), "paUAR-75 (2-best, min10c2)"),
        (metric("ccc", attribute="valence"), "CCC valence"),
        (metric("class_ccc", label="angry"), "class CCC angry"),
        (metric("held_by_gender", outcome="votes", level=90.0), "votes in set (90 %, by gender)"),
    ],
)
def test_a_metric_is_written_by_its_kind_and_read_back_from_json(named, name):
    assert named.name == name
    back = from_json(json.loads(json.dumps(named.to_json())))
    assert back == named
    assert back.about is KINDS[named.kind]


def test_a_parameter_too_few_or_an_unknown_kind_is_an_error():
    with pytest.raises(KeyError, match="threshold"):
        metric("pa_uar", 1, speakers="all")
    with pytest.raises(KeyError, match="nothing"):
        from_json({"kind": "nothing"})


def test_tables_are_in_the_order_of_the_catalogue():
    mixed = [
        metric("jsd"), metric("pa_uar", 1, threshold=50, speakers="all"), metric("uar", 2), metric("uar"),
        metric("pa_uar", 1, threshold=75, speakers="all"), metric("weighted_f1"),
    ]  # fmt: skip
    names = [key.name for key in sorted(mixed, key=lambda key: key.place())]
    assert names == ["UAR", "2-best UAR", "weighted-F1", "paUAR-75 (1-best, all)", "paUAR-50 (1-best, all)", "JSD"]


def test_words_have_an_order_of_their_own():
    mixed = [metric("ccc", attribute=name) for name in ("activation", "valence", "zeal", "dominance")]
    words = ("valence", "activation", "dominance")
    ordered = sorted(mixed, key=lambda key: key.place(words))
    assert [key.field("attribute") for key in ordered] == [*words, "zeal"]


def test_a_record_keeps_its_entries_in_any_order_of_keys():
    entries = {metric("pa_uar", 2, threshold=75, speakers="all"): {"value": 1.0}, metric("uar"): {"value": 0.5}}
    text = json.dumps(catalogue.entries_by_name(entries), sort_keys=True)
    back = catalogue.entries_by_metric(json.loads(text))
    assert {key: entry["value"] for key, entry in back.items()} == {key: e["value"] for key, e in entries.items()}


def test_systems_are_compared_by_the_first_or_every_n_and_the_highest_threshold():
    shares = {(n, t, who): metric("pa_uar", n, threshold=t, speakers=who)
              for n in (1, 2) for t in (50, 75) for who in ("all", "min10c2")}  # fmt: skip
    others = [metric("macro_f1", n, classes="all") for n in (1, 2)]
    given = [*shares.values(), metric("jsd"), metric("ccc_mean"), metric("uar", 2), *others, metric("uar")]
    assert catalogue.compared(given) == [
        metric("uar"), metric("uar", 2), others[0], metric("ccc_mean"), shares[1, 75, "all"], shares[2, 75, "all"]
    ]  # fmt: skip


def test_every_kind_is_computed_by_the_evaluation():
    evaluation = Path(catalogue.__file__).parents[1] / "evaluation"
    written = "".join(path.read_text(encoding="utf-8") for path in evaluation.glob("*.py"))
    assert not [key for key in KINDS if f'"{key}"' not in written]


def test_every_kind_is_shown_somewhere_and_explained_once():
    tables = {"scores", "speakers", "served", "strata", "classes", "shares", "attributes", "calibration"}
    tables |= {"conditions", "further"}
    assert {kind.table for kind in KINDS.values()} == tables
    further = {"scores", "groups", "layers", "conditions", "sets"}
    assert {table for kind in KINDS.values() for table in kind.also_in} == further
    words = [word for word, _ in catalogue.glossary()]
    assert len(words) == len(set(words))
    assert {kind.direction for kind in KINDS.values()} == {-1, 0, 1}
