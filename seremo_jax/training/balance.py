"""What an utterance weighs in the losses: less where its speaker or corpus has many, or classes go with groups.

Weights come from the training split of a member's own fold alone. They are computed once, on the host.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Int

from seremo_jax.core import ensemble, vocab
from seremo_jax.core.artefacts import ArtefactError
from seremo_jax.core.config import Config

_BY_GROUP = [(objective, "group") for objective in vocab.OBJECTIVES if objective != "mean"]


_BALANCES = ("speaker_balance", "group_balance", "corpus_balance")


class Groups(NamedTuple):
    """Who speaks in each utterance of the table, and the group of it.

    Attributes:
      speaker: [N] int32 number of the speaker, -1 where the corpus does not say.
      group: [N] int32 number of the group (`train.group_by`), -1 where it is not known.
      corpus: [N] int32 number of the corpus.
    """

    speaker: Int[np.ndarray, " N"]
    group: Int[np.ndarray, " N"]
    corpus: Int[np.ndarray, " N"]

    @property
    def of_objectives(self) -> tuple[Int[np.ndarray, " N"], Int[np.ndarray, " N"]]:
        """Those that an objective may be over, in the order of `vocab.OBJECTIVE_GROUPS`."""
        return self.speaker, self.group


class GroupTables(NamedTuple):
    """The groups that members train by.

    Attributes:
      table: As the utterance table has them.
      groups: [U, N] int32 number of the group, -1 where it is not known.
      slot: [E] int32 row of each member in `groups`.
    """

    table: Groups
    groups: Int[np.ndarray, "U N"]
    slot: Int[np.ndarray, " E"]

    @classmethod
    def of_columns(cls, groups: Groups, num_members: int) -> "GroupTables":
        """The same groups for every member."""
        return cls(groups, groups.group[None], np.zeros(num_members, np.int32))

    def of_member(self, number: int) -> Groups:
        """The groups of one member."""
        return self.table._replace(group=self.groups[self.slot[number]])


def reads_groups(member: ensemble.Member) -> bool:
    """Whether a member is trained by groups, and not by speakers alone."""
    return bool(member.group_balance) or (member.objective, member.objective_group) in _BY_GROUP


def groups_of(utterances: pa.Table, group_by: str, members: Sequence[ensemble.Member]) -> Groups:
    """Reads speakers and groups from the utterance table.

    Args:
      utterances: The table.
      group_by: Column with the groups, or `kmeans:K`, which no column says: none is known then.
      members: The members. Where none of them reads groups, the column need not be there.

    Raises:
      ArtefactError: It is needed and not there.
    """
    corpus, speaker = (utterances[name].to_pylist() for name in ("corpus", "speaker"))
    # Two corpora may call their speakers alike.
    people = [
        None if who in (None, vocab.UNKNOWN) else (where, who) for where, who in zip(corpus, speaker, strict=True)
    ]
    if vocab.num_clusters(group_by) is not None:
        # Who is in which group depends on the layer and the fold of a member, see `clusters`.
        groups = [None] * utterances.num_rows
    elif group_by in utterances.column_names:
        groups = [None if value == vocab.UNKNOWN else value for value in utterances[group_by].to_pylist()]
    elif any(map(reads_groups, members)):
        raise ArtefactError(
            f"train.group_by = {group_by!r} is no column of the utterance table: loss.group_balance and "
            f"loss.objective_group need one of {', '.join(utterances.column_names)}"
        )
    else:
        groups = [None] * utterances.num_rows
    return Groups(_codes(people), _codes(groups), _codes(corpus))


def _codes(values: Sequence[object]) -> Int[np.ndarray, " N"]:
    number = {value: i for i, value in enumerate(dict.fromkeys(value for value in values if value is not None))}
    return np.array([-1 if value is None else number[value] for value in values], np.int32)


class Weights(NamedTuple):
    """Weights of the utterances in the losses of some members.

    Attributes:
      table: [U, N] float32, a row for each combination of fold and balances; 1 outside the training split. None where
        every utterance weighs the same for all members.
      slot: [E] int32 row of each member.
    """

    table: Float[np.ndarray, "U N"] | None
    slot: Int[np.ndarray, " E"]


def combinations(
    members: Sequence[ensemble.Member], group_slot: Sequence[int] | Int[np.ndarray, " E"] | None = None
) -> tuple[list[tuple], Int[np.ndarray, " E"]]:
    """Fold, balances of speakers, groups and corpora, and groups: each that some member has, and that of each member.

    Args:
      members: The members.
      group_slot: Row of each one's groups, see `GroupTables`; None where all have the same.
    """
    slots = [0] * len(members) if group_slot is None else [int(slot) for slot in group_slot]
    keys = [
        (m.fold, m.speaker_balance, m.group_balance, m.corpus_balance, slot if m.group_balance else 0)
        for m, slot in zip(members, slots, strict=True)
    ]
    different = list(dict.fromkeys(keys))
    return different, np.array([different.index(key) for key in keys], np.int32)


def is_asked_for(config: Config) -> bool:
    """Whether utterances of some member of an experiment weigh differently."""
    return any(any(ensemble.values_of(config, field)) for field in _BALANCES)


def tempered(
    groups: Groups,
    shares: Float[np.ndarray, "n C"],
    has_shares: Bool[np.ndarray, " n"],
    speaker_balance: float,
    group_balance: float,
    corpus_balance: float = 0.0,
) -> Float[np.ndarray, " n"]:
    """`w_i ~ n_s^-alpha * n_k^-delta * sum_c p_ic (n_g n_c / (N n_gc))^gamma`, of mean 1, float64.

    n_s counts the utterances of a speaker, n_k those of a corpus; n_gc adds the vote shares p_ic of class c in group g
    up, n_g, n_c and N add n_gc up. Each factor has a mean of 1 where it is known, and is 1 where speaker, group or
    votes are not.

    Args:
      groups: Of the utterances of a training split.
      shares: Their vote shares.
      has_shares: Which of them have votes.
      speaker_balance: alpha.
      group_balance: gamma.
      corpus_balance: delta.

    Raises:
      ArtefactError: No speaker, or no group, is known.

    Source: KNOWN idea (arXiv:2406.05065: group-wise label distributions; F. Kamiran, T. Calders 2012: the factor with
    gamma = 1); OURS with powers and soft votes, METHOD.md, section 5.5.
    """
    weight = np.ones(len(shares))
    known = groups.speaker >= 0
    if speaker_balance and not known.any():
        raise ArtefactError("loss.speaker_balance: no utterance of the training split has a known speaker; set it to 0")
    if speaker_balance:
        factor = np.bincount(groups.speaker[known])[groups.speaker[known]].astype(np.float64) ** -speaker_balance
        weight[known] *= factor / factor.mean()
    known = (groups.group >= 0) & has_shares
    if group_balance and not known.any():
        raise ArtefactError(
            "loss.group_balance: no utterance of the training split has votes and a known group; set it to 0, or "
            "train.group_by to another column"
        )
    if group_balance:
        group, p = groups.group[known], shares[known].astype(np.float64)
        joint = np.zeros((group.max() + 1, p.shape[1]))
        np.add.at(joint, group, p)
        independent = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True) / joint.sum()
        ratio = np.where(joint > 0, independent / np.where(joint > 0, joint, 1), 0) ** group_balance
        factor = (p * ratio[group]).sum(axis=1)
        weight[known] *= factor / factor.mean()
    if corpus_balance:
        factor = np.bincount(groups.corpus)[groups.corpus].astype(np.float64) ** -corpus_balance
        weight *= factor / factor.mean()
    return weight / weight.mean()
