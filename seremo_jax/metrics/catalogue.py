"""Every metric as one record: how it is written, its unit, digits, direction, table, and its sentence in the glossary.

A `Metric` is a kind with its parameters, e.g. `pa_uar` with threshold 75 of 1-best over all speakers. Scores, result
records, tables, figures, the glossary, CSV files and leaderboards read a metric's properties here and never take its
name apart. A new metric is one entry in `KINDS`, in the order in which tables show them.
"""

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Kind:
    """What all metrics of one kind have in common.

    Attributes:
      key: Identifies the kind in result records.
      template: The written name, with the parameters in braces.
      table: Which table shows it: `scores`, `speakers`, `classes`, `shares`, `attributes`, `calibration`, `conditions`
        or `further`.
      also_in: Further tables that show it: `scores`, `groups`, `layers`, `conditions` (scores in every condition) or
        `sets` (calibration in every condition).
      unit: `%` for a share in percent; empty for a number without unit.
      digits: Decimals shown.
      direction: 1 where larger is better, -1 where smaller is better, 0 where neither is.
      compared: The N of N-best by which systems are compared (`compared`): `every` one, the `first`, or none (empty).
      word: Its word in the glossary; empty where another entry explains it.
      sentence: What the word means.
    """

    key: str
    template: str
    table: str
    also_in: tuple[str, ...] = ()
    unit: str = ""
    digits: int = 3
    direction: int = 1
    compared: str = ""
    word: str = ""
    sentence: str = ""


KINDS: dict[str, Kind] = {
    kind.key: kind
    for kind in (
        Kind(
            "uar",
            "{best}UAR",
            "scores",
            also_in=("groups", "layers", "conditions"),
            compared="every",
            word="UAR",
            sentence="unweighted average recall: recall of each class, then the mean over classes; 1 is perfect",
        ),
        Kind(
            "macro_f1",
            "{best}macro-F1 ({classes})",
            "scores",
            also_in=("groups", "layers"),
            compared="first",
            word="macro-F1",
            sentence="F1 of each class, then the mean over classes; the bracket says over which classes",
        ),
        Kind(
            "weighted_f1",
            "weighted-F1",
            "scores",
            compared="first",
            word="weighted-F1",
            sentence="mean of the classes' F1, weighted by their number of utterances",
        ),
        Kind(
            "class_ccc_mean",
            "class CCC mean",
            "scores",
            also_in=("groups", "layers", "conditions"),
            compared="first",
        ),
        Kind(
            "ccc",
            "CCC {attribute}",
            "attributes",
            also_in=("scores", "groups"),
            word="CCC",
            sentence="concordance correlation coefficient between prediction and rating, -1 to 1; 0 is no agreement",
        ),
        Kind("ccc_mean", "CCC mean", "scores", also_in=("groups", "layers", "conditions"), compared="first"),
        Kind(
            "pa_uar",
            "paUAR-{threshold} ({n}-best, {speakers})",
            "speakers",
            also_in=("groups", "conditions"),
            unit="%",
            digits=1,
            compared="every",
            word="paUAR-T",
            sentence=(
                "share (%) of speakers whose own UAR is above T/100. A high UAR with a low paUAR-75 hides speakers"
            ),
        ),
        Kind(
            "raters_worth",
            "worth in raters (up to {most})",
            "scores",
            digits=1,
            word="worth in raters",
            sentence=(
                "size of the panel of human raters whose UAR is that of the system, both against the same plurality of "
                "a few other raters; 0 is a guesser, and the largest size stands for more raters, too"
            ),
        ),
        Kind("pearson", "Pearson {attribute}", "attributes"),
        Kind("rmse", "RMSE {attribute}", "attributes", direction=-1),
        Kind("mae", "MAE {attribute}", "attributes", direction=-1),
        Kind("recall", "recall {label}", "classes"),
        Kind("precision", "precision {label}", "classes"),
        Kind("f1", "F1 {label}", "classes"),
        Kind(
            "class_ccc",
            "class CCC {label}",
            "shares",
            word="class CCC",
            sentence="CCC between the predicted and the voted share of a class over all utterances with votes",
        ),
        Kind("micro_f1", "{best}micro-F1", "further"),
        Kind(
            "accuracy",
            "accuracy",
            "further",
            word="accuracy",
            sentence="share of scored utterances whose 1-best class is the consensus (equal to micro-F1 here)",
        ),
        Kind(
            "jsd",
            "JSD",
            "further",
            direction=-1,
            word="JSD",
            sentence="Jensen-Shannon divergence of predicted and voted distribution, 0 (equal) to 1, lower is better",
        ),
        Kind(
            "kl",
            "KL",
            "further",
            direction=-1,
            word="KL",
            sentence="Kullback-Leibler divergence of the votes from the prediction in nats, lower is better",
        ),
        Kind("total_variation", "total variation", "further", direction=-1),
        Kind("entropy_correlation", "entropy correlation", "further"),
        Kind(
            "multi_label_f1",
            "multi-label macro-F1 (1/{num_classes})",
            "further",
            word="multi-label macro-F1 (1/C)",
            sentence=(
                "a class is present if its share exceeds 1/C, in votes and prediction alike; F1 of each class over all "
                "utterances, then the mean. Not comparable with macro-F1"
            ),
        ),
        Kind("expected_cost", "expected cost ({source})", "further", direction=-1),
        Kind("panel_uar", "UAR (against {raters} raters)", "further"),
        Kind("merged_uar", "merged UAR ({num_groups} groups)", "further"),
        Kind(
            "stable_share",
            "stable share",
            "conditions",
            word="stable share",
            sentence="share of utterances whose 1-best class is that of the clean rendering",
        ),
        Kind("uar_change", "UAR change", "conditions"),
        Kind("uar_drop", "UAR relative drop (%)", "conditions", unit="%", digits=1, direction=-1),
        Kind(
            "ece",
            "ECE ({outcome})",
            "calibration",
            direction=-1,
            word="ECE",
            sentence=(
                "mean distance, over 15 bins, of the predicted share of the 1-best class and the votes for it, or "
                "whether it is the consensus. Of few utterances it is above 0 for a perfect model, too: its interval "
                "reaches further down for that"
            ),
        ),
        Kind("ece_calibrated", "ECE ({outcome}, calibrated)", "calibration", also_in=("sets",), direction=-1),
        Kind(
            "nll",
            "NLL",
            "calibration",
            direction=-1,
            word="NLL",
            sentence="mean negative log likelihood of a vote, in nats: the KL plus the entropy of the votes",
        ),
        Kind("nll_calibrated", "NLL (calibrated)", "calibration", direction=-1),
        Kind("set_size", "set size ({level:g} %)", "calibration", also_in=("sets",), direction=-1),
        Kind("set_size_by_gender", "set size ({level:g} %, by gender)", "calibration", direction=-1),
        Kind(
            "held",
            "{outcome} in set ({level:g} %)",
            "calibration",
            also_in=("sets",),
            direction=0,
            word="votes in set",
            sentence="share of the votes that are for a class of the conformal set",
        ),
        Kind("held_by_gender", "{outcome} in set ({level:g} %, by gender)", "calibration", direction=0),
        Kind(
            "aurc",
            "AURC ({outcome})",
            "calibration",
            direction=-1,
            word="AURC",
            sentence="mean risk over all shares of utterances answered, the surest first",
        ),
        Kind(
            "risk",
            "risk ({outcome})",
            "calibration",
            direction=-1,
            word="risk",
            sentence=("share of votes for other classes than the 1-best, or of utterances whose consensus is another"),
        ),
        Kind("set_size_entropy", "set size-entropy correlation", "calibration", direction=0),
    )
}
"""Kind by its key, in the order of tables."""

TABLES = frozenset(kind.table for kind in KINDS.values())
"""The tables that show metrics."""

SPEAKER_FILTERS = {"all": (1, 1), "min10c2": (10, 2)}
"""Speaker filter of a share of speakers -> least scored utterances and least classes among them. Both are always
printed."""


def is_counted(num_scored: Any, num_classes: Any, speaker_filter: str) -> Any:
    """Whether a speaker with so many scored utterances, of so many classes, passes a filter; of numbers or arrays."""
    least_scored, least_classes = SPEAKER_FILTERS[speaker_filter]
    return (num_scored >= least_scored) & (num_classes >= least_classes)


_PLACES = {key: place for place, key in enumerate(KINDS)}


@dataclasses.dataclass(frozen=True)
class Metric:
    """A kind with its parameters.

    Attributes:
      kind: Key of the kind.
      n: N of N-best, where the kind has one.
      fields: The other parameters, by their names in order: (name, value).
    """

    kind: str
    n: int = 1
    fields: tuple[tuple[str, Any], ...] = ()

    @property
    def about(self) -> Kind:
        """Its kind."""
        return KINDS[self.kind]

    @property
    def name(self) -> str:
        """As it is written in tables and files."""
        best = "" if self.n == 1 else f"{self.n}-best "
        return KINDS[self.kind].template.format(n=self.n, best=best, **dict(self.fields))

    def place(self, words: Sequence[str] = ()) -> tuple:
        """Sort key for tables: the order of kinds, higher thresholds first, then N, then the other parameters.

        Args:
          words: Order of parameters that are words, e.g. the attributes and then the classes; others follow the
            alphabet.
        """
        threshold = self.field("threshold")
        first = -threshold if isinstance(threshold, int) else 0
        named = [words.index(value) if value in words else len(words) for _, value in self.fields]
        return _PLACES[self.kind], first, self.n, named, self.name

    def field(self, name: str) -> Any:
        """One parameter; None where the kind has no such one."""
        return dict(self.fields).get(name)

    def to_json(self) -> dict[str, Any]:
        """For a result record; `from_json` reads it."""
        return {"kind": self.kind, "n": self.n, **dict(self.fields)}


def metric(kind: str, n: int = 1, **fields: Any) -> Metric:
    """A metric by its kind's key and parameters.

    Raises:
      KeyError: No such kind, or a parameter of its template is missing.
    """
    complete = Metric(kind, n, tuple(sorted(fields.items())))
    _ = complete.name
    return complete


def from_json(entry: Mapping[str, Any]) -> Metric:
    """Reads what `Metric.to_json` wrote.

    Raises:
      KeyError: No such kind, or a parameter of its template is missing.
    """
    return metric(**entry)


def entries_by_name(entries: Mapping[Metric, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Entries as a result record holds them: by written name, each with its metric under `metric`."""
    return {key.name: {**entry, "metric": key.to_json()} for key, entry in entries.items()}


def entries_by_metric(entries: Mapping[str, Mapping[str, Any]]) -> dict[Metric, Mapping[str, Any]]:
    """Entries of a result record by metric; each has one under `metric`, as `entries_by_name` writes it.

    Raises:
      KeyError: An entry names no metric, or one of a kind that is not known.
    """
    return {from_json(entry["metric"]): entry for entry in entries.values()}


def compared(metrics: Iterable[Metric]) -> list[Metric]:
    """Those by which systems are compared, in the order of tables.

    Of a kind with a threshold this is the highest one, and of a kind that counts speakers the one that counts them all.
    """
    wanted = [key for key in metrics if key.n in {"every": (key.n,), "first": (1,), "": ()}[key.about.compared]]
    wanted = [key for key in wanted if key.field("speakers") in (None, "all")]
    highest = {key.kind: max(other.field("threshold") or 0 for other in wanted if other.kind == key.kind)
               for key in wanted}  # fmt: skip
    return sorted((key for key in wanted if (key.field("threshold") or 0) == highest[key.kind]), key=Metric.place)


def glossary(tables: Collection[str] | None = None) -> tuple[tuple[str, str], ...]:
    """(word, sentence) of every kind that has one, in the order of tables; of some tables' kinds, or of all."""
    return tuple(
        (kind.word, kind.sentence) for kind in KINDS.values() if kind.word and (tables is None or kind.table in tables)
    )
