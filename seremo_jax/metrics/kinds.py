"""The kinds of metric: how each is written, its unit, digits, direction, tables, and its sentence in the glossary.

A new metric is one entry in `KINDS`, in the order in which tables show them.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Kind:
    """What all metrics of one kind have in common.

    Attributes:
      key: Identifies the kind in result records.
      template: The written name, with the parameters in braces.
      table: Which table shows it: `scores`, `speakers`, `served`, `strata`, `classes`, `shares`, `attributes`,
        `calibration`, `conditions` or `further`.
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

    @property
    def family(self) -> str:
        """Tests of which metrics are corrected together: `served` of how each speaker is served, or else `main`."""
        return "served" if self.table in ("served", "strata") else "main"


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
            "pa_uar_true",
            "paUAR-{threshold}, true UAR",
            "served",
            unit="%",
            digits=1,
            compared="first",
            word="true UAR",
            sentence=(
                "a speaker's UAR without the noise of its few utterances: what very many of them would show. A "
                "paUAR of observed UAR changes with the number of utterances, that of the true UAR does not"
            ),
        ),
        Kind(
            "raters_served",
            "{best}raters served",
            "served",
            unit="%",
            digits=1,
            compared="first",
            word="raters served",
            sentence="share of the votes that are for one of the N classes with the largest predicted share",
        ),
        Kind(
            "stratum_uar",
            "UAR, {by}: {stratum}",
            "strata",
            compared="first",
            word="UAR by stratum",
            sentence=(
                "UAR of the utterances on whose class raters agree more or less (entropy of their votes), and of short "
                "and long ones"
            ),
        ),
        Kind("pa_uar_matched", "paUAR-{threshold}, {size} utterances", "served", unit="%", digits=1, compared="first"),
        Kind(
            "speaker_quantile",
            "UAR of speakers, {percent} % quantile",
            "served",
            compared="first",
            word="quantile of speakers",
            sentence="the UAR that so many percent of the speakers do not exceed",
        ),
        Kind(
            "worst_speakers",
            "UAR of the worst {percent} %",
            "served",
            compared="first",
            word="worst 20 %",
            sentence=(
                "mean UAR of the fifth of the speakers that a system serves worst (CVaR). Picked on other utterances: "
                "the worst are picked on one half of each speaker's utterances and scored on the other, else bad luck "
                "makes the worst look worse. If all were equal: what speakers show who are all alike, with as many "
                "utterances"
            ),
        ),
        Kind(
            "worst_speakers_by_halves",
            "UAR of the worst {percent} %, picked on other utterances",
            "served",
            compared="first",
        ),
        Kind("worst_speakers_if_equal", "UAR of the worst {percent} %, if all were equal", "served", direction=0),
        Kind(
            "gini",
            "Gini of speakers",
            "served",
            direction=-1,
            compared="first",
            word="Gini of speakers",
            sentence="mean difference of two speakers' UAR over twice the mean UAR: 0 where all are served alike",
        ),
        Kind("gini_if_equal", "Gini of speakers, if all were equal", "served", direction=0),
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
