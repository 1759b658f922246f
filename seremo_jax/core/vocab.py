"""The words that all rooms share: attributes in their order, class sets, names of splits, axis letters.

Axis letters used in every shape: E members, B batch, T frames, R packed rows (raters, in `targets`), D features,
H GRU width, K hidden states, C classes, A attributes, S speakers, N the N of N-best.
"""

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

OTHER = "other"
NO_AGREEMENT = "no_agreement"
UNKNOWN = "unknown"
"""Speaker or gender that the corpus does not give."""

TRAIN, DEVELOPMENT, TEST = "train", "development", "test"
SPLITS = (TRAIN, DEVELOPMENT, TEST, "test1", "test2", "test3")
"""Split names as stored. A corpus with one test set calls it `test`."""

SPLIT_KINDS = ("auto", "derived_by_class", "session", "kfold", "published")
"""How utterances may be split; `data.partitions.assign` says what each means."""

GENDERS = ("female", "male", UNKNOWN)
MODALITIES = ("voice", "face", "both")
CLASS_TARGETS = ("votes", "consensus")
CLEAN = "clean"
"""The condition an utterance was recorded in."""

CHOSEN_LAYER, LAYER_SUM = "saliency", "sum"
"""Words that `model.layer` takes beside numbers: the layer that saliency chose, a learned sum of the stored layers."""

CLASS_KINDS = ("ccc", "soft_ce", "kl", "jsd", "balanced_soft_ce", "hard_ce")
"""Losses of the class output; see `training.losses`."""
BALANCED_CLASS_KINDS = ("balanced_soft_ce",)
"""Those in which each class weighs the same in all."""
