"""Names of acoustic conditions: each is a chain of effects, and its id is how the chain is written.

clean               as recorded
noise:KIND:10db     at this signal-to-noise ratio; KIND is white, pink or brown, or in a folder of recordings steady,
                    events, recorded (any of them), or one of its own kinds
babble:10db         six other utterances of other speakers of the split, together
reverb:ROOM:0.6s    ROOM is synthetic, measured (a folder of responses), or shoebox (simulated by pyroomacoustics)
telephone           300 to 3400 Hz, sampled at 8 kHz
codec:NAME          through 8 kHz and a codec and back; NAME is mulaw or gsm
clipping:10db       what exceeds the peak lowered by this much is cut off
gain:-20db          louder or softer
A+B                 A first, then B: reverb:synthetic:0.6s+noise:white:10db
"""

import dataclasses
import re
from collections.abc import Collection, Sequence
from typing import NamedTuple

from seremo_jax.core import vocab

GENERATED_NOISES = ("white", "pink", "brown")
"""Noises that need no recording; power falls with frequency to the power 0, 1 and 2."""
BABBLE = "babble"
RECORDED_NOISES = ("steady", "events", "recorded")
"""Groups of a folder of recordings, beside its own kinds: steady backgrounds, events, and all of them."""
ROOMS = ("synthetic", "measured", "shoebox")
CODECS = ("mulaw", "gsm")
FAMILIES = ("noise", "reverb", "combined", "channel", "all")
"""Words that stand for many conditions in `eval.conditions`."""

_WORD = re.compile(r"[a-z0-9][a-z0-9_-]*")


class ConditionError(ValueError):
    """A condition is written wrongly, or cannot be rendered. The message says which, and what would do."""


class EffectKind(NamedTuple):
    """How effects of one kind are written. What they do to a waveform stands in `conditions.render` under its name.

    Attributes:
      unit: `db` or `s`; empty where there is no value.
      lowest: The lowest value.
      names: What may be named; any word where this is None, nothing where it is empty.
      channels: Ids in the family `channel`.
    """

    unit: str = ""
    lowest: float = -100.0
    names: tuple[str, ...] | None = ()
    channels: tuple[str, ...] = ()


EFFECTS = {
    "noise": EffectKind("db", names=None),
    BABBLE: EffectKind("db"),
    "reverb": EffectKind("s", lowest=0.05, names=ROOMS),
    "telephone": EffectKind(channels=("telephone",)),
    "codec": EffectKind(names=CODECS, channels=tuple(f"codec:{name}" for name in CODECS)),
    "clipping": EffectKind("db", channels=("clipping:10db",)),
    "gain": EffectKind("db", channels=("gain:-20db",)),
}
"""Kind of effect by its name."""

CHANNELS = tuple(text for kind in EFFECTS.values() for text in kind.channels)
"""Ids of the family `channel`."""


class Effect(NamedTuple):
    """One link of the chain.

    Attributes:
      kind: Name of its kind, see `EFFECTS`.
      name: Which noise, room or codec; empty where there is nothing to name.
      value: SNR, clipping or gain in dB, or RT60 in s; 0 where there is none.
    """

    kind: str
    name: str
    value: float

    @property
    def stream(self) -> str:
        """What its random draws depend on: not the SNR, so that an utterance keeps its noise over a whole curve."""
        return f"{self.kind}:{self.name}"

    @property
    def words(self) -> str:
        """Its name and value as they are written, without its kind."""
        unit = EFFECTS[self.kind].unit
        return ":".join([*([self.name] if self.name else []), *([f"{self.value:g}{unit}"] if unit else [])])

    def __str__(self) -> str:
        return f"{self.kind}:{self.words}" if self.words else self.kind


@dataclasses.dataclass(frozen=True)
class Condition:
    """An acoustic condition; without effects it is the clean one."""

    effects: tuple[Effect, ...] = ()

    @property
    def id(self) -> str:
        """As it is written, in one form only."""
        return "+".join(map(str, self.effects)) or vocab.CLEAN

    @property
    def file_name(self) -> str:
        """The id, fit for a file name on every system."""
        return self.id.replace(":", "-")

    @property
    def noise(self) -> Effect | None:
        """The noise where there is one: `name` its kind (`babble`, too), `value` its SNR in dB."""
        effect = next((effect for effect in self.effects if effect.kind in ("noise", BABBLE)), None)
        return None if effect is None else Effect("noise", effect.name or BABBLE, effect.value)

    @property
    def room(self) -> Effect | None:
        """The room where there is one: `value` its RT60 in s."""
        return next((effect for effect in self.effects if effect.kind == "reverb"), None)

    @property
    def family(self) -> str:
        """`clean`, or the first of `FAMILIES` that fits."""
        kinds = {effect.kind for effect in self.effects}
        if not kinds:
            return vocab.CLEAN
        if kinds <= {"noise", BABBLE}:
            return "noise"
        if kinds == {"reverb"}:
            return "reverb"
        return "combined" if len(self.effects) > 1 else "channel"


def parse(text: str) -> Condition:
    """Reads an id.

    Raises:
      ConditionError: No such condition; the message gives the forms.
    """
    if text == vocab.CLEAN:
        return Condition()
    condition = Condition(tuple(_effect(part, text) for part in text.split("+")))
    for kinds in (("noise", BABBLE), ("reverb",)):
        if sum(effect.kind in kinds for effect in condition.effects) > 1:
            raise ConditionError(f"condition {text!r} has {kinds[0]} twice: give at most one noise and one room")
    return condition


def _effect(part: str, text: str) -> Effect:
    kind, *rest = part.split(":")
    if kind not in EFFECTS:
        raise ConditionError(f"condition {text!r}: unknown effect {kind!r}; known are {', '.join(EFFECTS)} and clean")
    unit, lowest, names, _ = EFFECTS[kind]
    form = ":".join(
        [kind, *(["NAME"] if names != () else []), *([f"10{unit}" if unit == "db" else "0.6s"] if unit else [])]
    )
    name = rest.pop(0) if names != () and rest else ""
    if (names != () and not _WORD.fullmatch(name)) or len(rest) != bool(unit):
        raise ConditionError(f"condition {text!r}: write {form}, not {part!r}")
    if names and name not in names:
        raise ConditionError(f"condition {text!r}: unknown {kind} {name!r}; choose one of {', '.join(names)}")
    value = 0.0
    if unit:
        try:
            value = float(rest[0].removesuffix(unit)) if rest[0].endswith(unit) else float("nan")
        except ValueError:
            value = float("nan")
        if not lowest <= value <= 100:
            raise ConditionError(f"condition {text!r}: write {form}, not {part!r}")
    if kind == "clipping" and value <= 0:
        raise ConditionError(f"condition {text!r}: clipping needs more than 0 db, or nothing is cut off")
    return Effect(kind, name, value + 0.0)


def expand(
    words: Sequence[str],
    *,
    noise_kinds: Sequence[str],
    snr_db: Sequence[float],
    rt60_s: Sequence[float],
    combined_snr_db: float,
    recorded_kinds: Collection[str] = (),
    has_responses: bool = False,
) -> tuple[Condition, ...]:
    """The conditions that words stand for, without repeats, the clean one always first.

    Args:
      words: Ids and `FAMILIES`.
      noise_kinds: Kinds of the families noise and combined; `recorded_kinds` add steady and events, or else recorded.
      snr_db: SNRs of the family noise, in dB.
      rt60_s: RT60s of the families reverb and combined, in s.
      combined_snr_db: SNR of the family combined, in dB.
      recorded_kinds: Kinds of noise that there are recordings of.
      has_responses: Whether there are measured responses; they join the synthetic rooms.

    Raises:
      ConditionError: No such word, or a condition needs recordings or responses that are not there.
    """
    groups = [kind for kind in RECORDED_NOISES[:2] if kind in recorded_kinds]
    kinds = dict.fromkeys([*noise_kinds, *(groups or RECORDED_NOISES[2:] if recorded_kinds else ())])
    rooms = [Effect("reverb", name, float(rt60)) for name in ROOMS[: 1 + has_responses] for rt60 in rt60_s]

    def noise(kind: str, snr: float) -> Effect:
        return Effect(BABBLE, "", float(snr)) if kind == BABBLE else Effect("noise", kind, float(snr))

    families = {
        "noise": [Condition((noise(kind, snr),)) for kind in kinds for snr in sorted({*snr_db}, reverse=True)],
        "reverb": [Condition((room,)) for room in rooms],
        "combined": [Condition((room, noise(kind, combined_snr_db))) for room in rooms for kind in kinds],
        "channel": [parse(text) for text in CHANNELS],
    }
    families["all"] = [condition for family in families.values() for condition in family]
    conditions = [Condition()]
    for word in words:
        conditions += families[word] if word in families else [parse(word)]
    for condition in conditions:
        require_sources(condition, recorded_kinds, has_responses)
    return tuple(dict.fromkeys(conditions))


def require_sources(
    condition: Condition, recorded_kinds: Collection[str], has_responses: bool, section: str = "eval"
) -> None:
    """Refuses a condition that needs recordings or responses that are not there.

    Args:
      condition: The condition.
      recorded_kinds: Kinds of noise that there are recordings of.
      has_responses: Whether there are measured responses.
      section: Section of the config whose `noise_dir` and `rir_dir` they come from.

    Raises:
      ConditionError: It does; the message says what there is.
    """
    for effect in condition.effects:
        is_recorded = effect.kind == "noise" and effect.name not in GENERATED_NOISES
        if is_recorded and effect.name not in recorded_kinds:
            there = ", ".join(sorted(recorded_kinds)) or f"none ({section}.noise_dir is not set)"
            raise ConditionError(f"condition {condition.id!r}: no recordings of {effect.name!r}; there are {there}")
        if effect.name == "measured" and not has_responses:
            raise ConditionError(
                f"condition {condition.id!r} needs measured responses: set {section}.rir_dir to a folder of them, or "
                f"write reverb:synthetic:{effect.value:g}s"
            )
