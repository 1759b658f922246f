"""The words that all rooms share: attributes in their order, class sets, names of splits, axis letters.

Axis letters used in every shape: E members, B batch, T frames, R packed rows (raters, in `targets`), D features,
H GRU width, K hidden states, C classes, A attributes, S speakers, N the N of N-best.
"""

import re
from typing import NamedTuple

ATTRIBUTES = ("valence", "activation", "dominance")
"""Attribute names in the order every array and table of this project uses."""

ATTRIBUTE_SYNONYMS = {"arousal": "activation"}
"""Accepted on input, never written."""

CLASS_SETS = {
    "msp8": ("angry", "sad", "happy", "surprise", "fear", "disgust", "contempt", "neutral"),
    "crema6": ("angry", "disgust", "fear", "happy", "neutral", "sad"),
    "iemocap4": ("angry", "happy", "sad", "neutral"),
    "iemocap5": ("angry", "happy", "excited", "sad", "neutral"),
    "iemocap6": ("angry", "happy", "excited", "sad", "frustrated", "neutral"),
    "improv4": ("angry", "happy", "sad", "neutral"),
}
"""Named, ordered class sets. The order breaks ties between equal probabilities (earlier class first)."""

CLASS_WORDS = frozenset(word for words in CLASS_SETS.values() for word in words)
"""Every word that some class set knows."""

MERGED_WORDS = {"iemocap4": {"excited": "happy"}}
"""Class set -> words that count as another in it. Tables keep the rater's own word."""

CLASS_SPELLINGS = {
    "anger": "angry",
    "sadness": "sad",
    "happiness": "happy",
    "surprised": "surprise",
    "fearful": "fear",
    "disgusted": "disgust",
    "neutral state": "neutral",
    "excitement": "excited",
    "frustration": "frustrated",
}
"""Word for a class in lower case -> ours."""

OTHER = "other"
NO_AGREEMENT = "no_agreement"
UNKNOWN = "unknown"
"""Speaker or gender that the corpus does not give."""


UNION = "+"
"""Stands between class sets whose union is meant."""


def classes_of(class_set: str) -> tuple[str, ...]:
    """Classes of a set in their order, in our spelling.

    Args:
      class_set: Name of one of `CLASS_SETS`, or the classes themselves, two or more, separated by commas; or several of
        these with `+` between, which is their union, each class where it is named first.

    Raises:
      ValueError: It is neither; the message says what to write.
    """
    if UNION in class_set:
        names = dict.fromkeys(name for part in class_set.split(UNION) for name in classes_of(part.strip()))
        return tuple(names)
    if class_set in CLASS_SETS:
        return CLASS_SETS[class_set]
    words = [word.strip().lower() for word in class_set.split(",")]
    names = tuple(CLASS_SPELLINGS.get(word, word) for word in words)
    if len(names) < 2:
        raise ValueError(
            f"{class_set!r}: choose one of {', '.join(CLASS_SETS)}, or write your own classes, e.g. angry,boredom,calm"
        )
    for word in names:
        if word.partition("-")[0] in (OTHER, NO_AGREEMENT, UNKNOWN) or not re.fullmatch(r"[^\W_][\w '-]*", word):
            raise ValueError(f"{class_set!r}: {word!r} cannot be a class of a set: write words, separated by commas")
    if len(set(names)) < len(names):
        raise ValueError(f"{class_set!r} names a class twice: {', '.join(names)}")
    return names


def merged_words(class_set: str) -> dict[str, str]:
    """Words that count as another in a class set. In a union a word that some set of it has as a class is that class.

    Args:
      class_set: As of `classes_of`.
    """
    names = classes_of(class_set)
    merged: dict[str, str] = {}
    for part in class_set.split(UNION):
        merged |= {word: name for word, name in MERGED_WORDS.get(part.strip(), {}).items() if word not in names}
    return merged


TRAIN, DEVELOPMENT, TEST = "train", "development", "test"
SPLITS = (TRAIN, DEVELOPMENT, TEST, "test1", "test2", "test3")
"""Split names as stored. A corpus with one test set calls it `test`."""

SPLIT_KINDS = {
    "auto": "the corpus's own, else drawn",
    "derived_by_class": "drawn, then evened out in classes",
    "session": "leave one out",
    "kfold": "folds over speakers",
    "published": "reference folds of the corpus",
    "all_test": "every utterance is test: a corpus that is scored and not trained on",
}
"""How utterances may be split -> what it means; see `data.partitions.assign`."""

GENDERS = ("female", "male", UNKNOWN)
MODALITIES = ("voice", "face", "both")
CLASS_TARGETS = ("votes", "consensus")
BOTH_TARGETS = "both"
"""Class target of a mean over predictions of members that learned from either."""
CLEAN = "clean"
"""The condition an utterance was recorded in."""

NO_SPEAKER = "inf"
"""What `model.speaker_kappa_s` takes beside numbers: no speaker's own statistics count beside the training split's."""

CHOSEN_LAYER, LAYER_SUM = "saliency", "sum"
"""Words that `model.layer` takes beside numbers: the layer that saliency chose, a learned sum of the stored layers."""


class ClassLoss(NamedTuple):
    """A loss of the class output. Its formula stands in `training.losses` under the same name.

    Attributes:
      meaning: What it is, for `--help`.
      is_balanced: Each class weighs the same in all.
      is_on_consensus: It is defined for the consensus only.
    """

    meaning: str
    is_balanced: bool = False
    is_on_consensus: bool = False


CLASS_LOSSES = {
    "ccc": ClassLoss("1 - mean CCC of the classes, over the batch"),
    "soft_ce": ClassLoss("cross-entropy"),
    "kl": ClassLoss("Kullback-Leibler divergence"),
    "jsd": ClassLoss("Jensen-Shannon divergence"),
    "balanced_soft_ce": ClassLoss("cross-entropy, each class weighing the same", is_balanced=True),
    "hard_ce": ClassLoss("cross-entropy, on the consensus", is_on_consensus=True),
}
"""Class loss by its name, in the order of their codes."""

POOLINGS = {
    "last_valid": "its last state, of each direction",
    "mean": "the mean of its states",
    "mean_sd": "their mean and standard deviation",
}
"""Summary of an utterance's states -> what it is. `training.pooling` computes them."""

SELECTION_SCORES = {
    "ccc": "mean CCC of the attributes plus mean CCC of the classes",
    "class_ccc": "mean CCC of the classes",
    "uar": "UAR against the consensus",
    "macro_f1": "macro-F1 against the consensus, over the classes that occur",
    "worst_speakers": "mean UAR of the fifth of the speakers with the lowest",
    "loss": "minus the loss that is trained by",
}
"""Score of the development split that picks an epoch -> what it is. `training.selection` computes them."""

OBJECTIVES = {
    "mean": "every utterance by its weight",
    "group_dro": "groups served worse weigh more and more",
    "cvar": "the loss.cvar_share of the groups served worst",
    "vrex": "the mean and the variance over groups",
}
"""What is made of the losses of groups -> what it is. `training.robust` computes them."""

_CLUSTERS = re.compile(r"kmeans:([2-9]|[1-9][0-9]+)")


def num_clusters(group_by: str) -> int | None:
    """K of `kmeans:K`, which `train.group_by` may say in place of a column; None of a column.

    Raises:
      ValueError: It begins like it and is not it.
    """
    if not group_by.startswith("kmeans"):
        return None
    if (match := _CLUSTERS.fullmatch(group_by)) is None:
        raise ValueError(f"{group_by!r}: write kmeans:K with a number of groups from 2 on, e.g. kmeans:4")
    return int(match[1])


OBJECTIVE_GROUPS = {"speaker": "", "group": "train.group_by"}
"""What the groups of an objective are."""

SPEAKER_PRIORS = {
    "transductive": "from all utterances of the speaker",
    "online": "from the earlier ones, in the order of the corpus",
}
"""From which utterances a speaker's prior is estimated -> what it is. `evaluation.speaker_priors` does."""

ADAPTED_NOTE = (
    "Systems with a speaker's prior see other utterances of the test speaker without labels, enrolled ones with "
    "labels. Transductive: also those that are scored."
)
"""What a protocol card says of systems that are adapted to test speakers."""

CONVOLUTIONS = {
    "depthwise": "each feature by itself",
    "dense": "model.conv_filters filters over all features",
}
"""Kind of the convolution beside the features -> what it is over. `training.model` computes them."""

ACTIVATIONS = {"none": "linear", "tanh": "", "relu": "", "gelu": "with the normal distribution itself"}
"""Activation of the embedding -> what it is. `training.model` computes them."""
