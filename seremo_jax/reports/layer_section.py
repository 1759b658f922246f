"""The section on layers: all curves with intervals, saliency of every target, what each layer lacks to the best.

Beside them stands what else a layer holds: the share of its variance between genders, speakers and sentences.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from seremo_jax.reports import failure_signs, layer_figures, page
from seremo_jax.reports.artefacts import Artefacts, picture
from seremo_jax.reports.table import Cell, Row, Table, measured

_CURVES = {"ccs": "ccs", "dccs": "dccs", "probe": "ridge probe"}
_CURVE_WORDS = {
    "ccs": "ccs: mean over features of the absolute correlation between a feature's mean over an utterance and a "
    "target.",
    "dccs": "dccs: share of a target's variance that goes with all features together, less what chance gives. What "
    "many features hold counts once.",
    "probe": "Ridge probe: CCC of ridge regression on all features, predicting speakers it was not fitted to; its "
    "intervals hold for other speakers to predict, not others to fit.",
}
_SHARE_WORDS = (
    "Mean over features of epsilon squared, the share of a feature's variance that lies between genders, speakers or "
    "sentences, less what chance gives. The share of speakers has that of gender in it."
)


def saliency_section(artefacts: Artefacts, folder: Path) -> page.Section:
    """Curves over layers as figure and table, or how to get them; `folder` is where the figures are drawn."""
    saliency, title = artefacts.saliency, "Which layer carries emotion"
    if saliency is None:
        text = "No saliency was ranked in this workdir: python -m launch.saliency ranks the layers that were extracted."
        return page.Section("saliency", title, (text,))
    names, curves = saliency["targets"], saliency["curves"]
    per_layer = np.array(curves["ccs"]["per_layer"], np.float64)
    panels: dict[str, dict[str, np.ndarray]] = {"attributes": {}, "shares of votes": {}}
    for y, name in enumerate(names):
        if saliency["varies"][y]:  # a target nobody rated has no curve
            panels["shares of votes" if name in saliency["classes"] else "attributes"][name] = per_layer[:, y]
    panels = {panel: by_target for panel, by_target in panels.items() if by_target}
    used = "shares of votes" if saliency["use"] == "votes" else "attributes"
    score = np.array(curves["ccs"]["score"], np.float64)
    layers, kind = saliency["layers"], saliency["kind"]
    curves = {name: curves[name] for name in _CURVES if curves.get(name) is not None}
    by_title = {_CURVES[name]: curve for name, curve in curves.items()}
    words = " ".join(_CURVE_WORDS[name] for name in curves)
    pictures = [
        picture(
            artefacts, None, folder, "layer_curves",
            ("Curves over layers, with intervals over speakers", f"Means over {used}. {words}"),
            lambda style: layer_figures.layer_curves(style, layers, by_title, _CURVES[kind]),
        ),
        picture(
            artefacts, None, folder, "saliency",
            ("Saliency (ccs) of every layer for every target", f"The bold line is the mean over {used}."),
            lambda style: layer_figures.saliency(
                style, layers, panels, score, saliency["chosen"], used, saliency["num_utterances"]
            ),
        ),
    ]  # fmt: skip
    largest = [f"{_CURVES[name]} is largest in layer {curve['chosen']} ({max(curve['score']):.3f})"
            for name, curve in curves.items()]  # fmt: skip
    text = (
        f"Over {used} of {saliency['num_utterances']:,} training utterances, {', '.join(largest)}, of layers "
        f"{layers[0]} to {layers[-1]}. Layer {saliency['chosen']} was chosen by {kind} (saliency.kind)."
    )
    if folds := saliency.get("folds"):
        listed = ", ".join(f"{entry['chosen']} in fold {entry['fold']}" for entry in folds)
        text += f" Heads of folds read the layer that the training speakers of their own fold chose: {listed}."
    warnings = saliency.get("warnings") or failure_signs.of_saliency(layers, saliency["chosen"])
    signs = tuple(f"{sign[0].upper()}{sign[1:].rstrip('.')}." for sign in warnings)
    items = [pictures[0], _curve_table(artefacts, layers, by_title, words), pictures[1]]
    factors = saliency.get("variance_shares", {})
    if shares := {name: entry for name, entry in factors.items() if "absent" not in entry}:
        items += [_shares_picture(artefacts, shares, folder), _shares_table(artefacts, shares)]
    if absent := [f"by {name}: {entry['absent']}" for name, entry in factors.items() if "absent" in entry]:
        text += f" No share of variance {'; '.join(absent)}."
    return page.Section("saliency", title, (text,), signs, tuple(items))


def _shares_picture(artefacts: Artefacts, shares: Mapping[str, Mapping[str, Any]], folder: Path) -> page.Picture:
    layers, chosen = artefacts.saliency["layers"], artefacts.saliency["chosen"]
    labels = {f"{name} ({entry['num_values']})": entry for name, entry in shares.items()}
    return picture(
        artefacts, None, folder, "variance_shares",
        ("Share of variance between genders, speakers and sentences", _SHARE_WORDS),
        lambda style: layer_figures.variance_shares(style, layers, labels, chosen),
    )  # fmt: skip


def _shares_table(artefacts: Artefacts, shares: Mapping[str, Mapping[str, Any]]) -> Table:
    def cell(entry: Mapping[str, Any], k: int) -> Cell:
        return measured({"value": entry["share"][k], "low": entry["low"][k], "high": entry["high"][k]})

    rows = tuple(
        Row((str(layer),), tuple(cell(entry, k) for entry in shares.values()))
        for k, layer in enumerate(artefacts.saliency["layers"])
    )
    columns = tuple(f"{name} ({entry['num_values']})" for name, entry in shares.items())
    caption = _caption(artefacts, f"{_SHARE_WORDS} In brackets behind a name: how many there are.")
    return Table("What else a layer holds", ("layer",), columns, rows, caption)


def _caption(artefacts: Artefacts, words: str) -> str:
    notes = " ".join(artefacts.ingest["corpus"].get("notes", ()))
    whole = f"{'Simulated speech. ' if artefacts.is_simulated else ''}{words} {notes}".strip()
    return f"{whole} Brackets: 95 % interval over speakers."


def _curve_table(
    artefacts: Artefacts, layers: Sequence[int], curves: Mapping[str, Mapping[str, Any]], words: str
) -> Table:
    """Scores of every layer with intervals, and what each lacks to the best one."""

    def cell(curve: Mapping[str, Any], name: str, k: int, prefix: str) -> Cell:
        numbers = {"value": curve[name], "low": curve[f"{prefix}low"], "high": curve[f"{prefix}high"]}
        return measured({key: values[k] for key, values in numbers.items()})

    parts = [("score", "", ""), ("behind", "behind_", " behind the best")]
    columns = tuple(f"{title}{suffix}" for title in curves for _, _, suffix in parts)
    rows = tuple(
        Row((str(layer),), tuple(cell(curve, name, k, prefix) for curve in curves.values()
                                 for name, prefix, _ in parts)) for k, layer in enumerate(layers)
    )  # fmt: skip
    return Table("Layers", ("layer",), columns, rows, _caption(artefacts, words))
