"""What raters would score: against every choice of raters written out, and in simulated corpora of known skill."""

import collections
import itertools

import audmetric
import numpy as np
import pytest
import sklearn.metrics

from seremo_jax.metrics import intervals, raters, resampling
from seremo_jax.metrics.confusions import class_scores
from seremo_jax.metrics.moments import Moments
from seremo_jax.metrics.passing import passes

NUM_CLASSES, OUTSIDE = 3, 3
VOTES = np.asarray([[2, 1, 0, 1], [3, 0, 1, 0], [1, 1, 1, 1], [0, 4, 1, 0], [0, 0, 0, 3], [1, 0, 0, 0], [0, 0, 0, 0],
                    [2, 2, 1, 0], [0, 1, 4, 1]])  # fmt: skip


def answers_of(row):
    """The answer of each rater of one utterance."""
    return [answer for answer, number in enumerate(row) for _ in range(number)]


def pluralities(answers):
    """Each most frequent answer."""
    counts = collections.Counter(answers)
    return [answer for answer, number in counts.items() if number == max(counts.values())]


def target_of(answers):
    """Plurality inside the class set; None where it is tied, outside, or nobody answers."""
    top = pluralities(answers) if answers else []
    return top[0] if len(top) == 1 and top[0] != OUTSIDE else None


def written_out(size, num_others):
    """(utterance, target, answer, probability) of every choice of raters; `num_others` None for all others."""
    for i, row in enumerate(VOTES):
        everyone = answers_of(row)
        choices = []
        for panel in itertools.combinations(range(len(everyone)), size):
            rest = [j for j in range(len(everyone)) if j not in panel]
            number = len(rest) if num_others is None else num_others
            choices += [(panel, others) for others in itertools.combinations(rest, number)]
        for panel, others in choices:
            target = target_of([everyone[j] for j in others])
            top = pluralities([everyone[j] for j in panel])
            for answer in top if target is not None else ():
                yield i, target, answer, 1 / len(choices) / len(top)


@pytest.mark.parametrize(("size", "num_others"), [(1, None), (1, 2), (2, 2), (3, 2), (2, 3)])
def test_every_choice_of_raters(size, num_others):
    joint = raters.leave_one_out(VOTES) if num_others is None else raters.panel_answers(VOTES, size, num_others)
    expected = np.zeros_like(joint)
    rows = list(written_out(size, num_others))
    for i, target, answer, probability in rows:
        expected[i, target, answer] += probability
    np.testing.assert_allclose(joint, expected, atol=1e-12)
    right, support, predicted = (part.sum(axis=0) for part in raters.class_sums(joint))
    own = class_scores(right, support, predicted)
    target, answer, weight = (np.asarray(column) for column in list(zip(*rows, strict=True))[1:])
    pair = {"y_true": target, "y_pred": answer, "sample_weight": weight, "labels": np.unique(target)}
    assert own.uar == pytest.approx(sklearn.metrics.recall_score(**pair, average="macro"))
    assert own.macro_f1 == pytest.approx(sklearn.metrics.f1_score(**pair, average="macro"))


def test_targets_are_the_same_for_every_size():
    one, three = (raters.panel_answers(VOTES[[0, 1, 3, 8]], size, 2).sum(axis=2) for size in (1, 2))
    np.testing.assert_allclose(one, three)


@pytest.mark.parametrize("halves", [True, False])
def test_class_ccc_of_every_split_of_the_raters(halves):
    votes = VOTES[:, :NUM_CLASSES]
    total = votes.sum(axis=1)
    size = total // 2 if halves else np.ones_like(total)
    sums = {name: part.sum(axis=0) for name, part in raters.share_sums(votes, size, total - size).items()}
    moments = intervals.moments_of_sums(
        {intervals.MomentSum("shares", name): part for name, part in sums.items()}, "shares", np.zeros((2, NUM_CLASSES))
    )
    pairs = []
    for row, number in zip(votes, size, strict=True):
        everyone = answers_of(row)
        if number < 1 or number >= len(everyone):
            continue
        choices = list(itertools.combinations(range(len(everyone)), number))
        for chosen in choices:
            sides = [[a for j, a in enumerate(everyone) if (j in chosen) == own] for own in (True, False)]
            share = [np.bincount(side, minlength=NUM_CLASSES) / len(side) for side in sides]
            # Every utterance counts once, however many splits it has: 60 is a multiple of their numbers.
            pairs += [share] * (60 // len(choices))
    assert sums["num_rows"][0] == len(pairs) / 60
    x, y = np.asarray(pairs).transpose(1, 0, 2)
    expected = [audmetric.concordance_cc(y[:, c], x[:, c]) for c in range(NUM_CLASSES)]
    np.testing.assert_allclose(moments.compute().ccc, expected, atol=1e-9)


def test_who_passes_by_every_draw():
    unit = np.asarray([0, 0, 1, 0, 1, 1, 1, 2, 2])
    joint = raters.leave_one_out(VOTES)
    exact = np.zeros(3)
    for u in range(3):
        rows = np.flatnonzero(unit == u)
        outcomes = [[(p, t, a) for (t, a), p in np.ndenumerate(joint[i]) if p] for i in rows]
        outcomes = [[*own, (1 - sum(p for p, _, _ in own), None, None)] for own in outcomes]
        for drawn in itertools.product(*outcomes):
            scored = [(t, a) for _, t, a in drawn if t is not None]
            recalls = [np.mean([a == c for t, a in scored if t == c]) for c in {t for t, _ in scored}]
            if recalls and np.mean(recalls) > 0.5:
                exact[u] += np.prod([p for p, _, _ in drawn])
    passing = raters.passing_by_draw(joint, unit, 4, (50,), 0, 20_000)[:, 0]
    np.testing.assert_allclose(passing[:3], exact, atol=4 * np.sqrt(0.25 / 20_000))
    assert passing[3] == 0


def test_worth():
    panels = np.asarray([0.5, 0.5, 0.6, 0.7])
    scores = np.asarray([0.1, 0.2, 0.35, 0.5, 0.51, 0.6, 0.65, 0.7, 0.9])
    np.testing.assert_allclose(raters.worth(scores, panels, 0.2), [0, 0, 0.5, 1, 2.1, 3, 3.5, 4, 4])
    many = np.stack([panels, panels + 0.1])[:, None]
    np.testing.assert_allclose(raters.worth(np.full((2, 3), 0.6), many, 0.2), [[3] * 3, [1] * 3])


NUM_CORPORA, NUM_SPEAKERS, NUM_RATERS = 300, 40, 7
PRIOR = np.asarray([0.5, 0.3, 0.2])
SKILL = np.asarray([0.75, 0.6, 0.5])  # of a rater, for each class; other answers are as likely as each other
CLARITY = (0.75, 1.0)  # of a speaker: factor of the skill, each as likely
THRESHOLD, SIZE = 60, 24


def answers_in(clarity):
    """[C, C] how likely a rater answers each class, true class in rows."""
    right = clarity * SKILL
    return np.where(np.eye(3, dtype=bool), right[:, None], (1 - right[:, None]) / 2)


def plurality_in(clarity, number, is_shared):
    """[C, C] how likely the plurality of independent raters is each class; ties left out, or shared."""
    result = np.zeros((3, 3))
    for answers in itertools.product(range(3), repeat=number):
        top = pluralities(answers)
        if len(top) == 1 or is_shared:
            for c in top:
                result[:, c] += np.prod(answers_in(clarity)[:, answers], axis=1) / len(top)
    return result


def known_scores():
    """In closed form: raters are independent, given the true class and the speaker."""
    right, support = np.zeros((2, 3)), np.zeros((2, 3))
    moments = collections.defaultdict(float)
    for clarity in CLARITY:
        # One rater against all others, and three against three.
        for place, (size, others) in enumerate(((1, NUM_RATERS - 1), (3, 3))):
            target, answer = plurality_in(clarity, others, False), plurality_in(clarity, size, True)
            right[place] += PRIOR @ (target * answer) / 2
            support[place] += PRIOR @ target / 2
        p = answers_in(clarity)
        moments["p"] += PRIOR @ p / 2
        moments["pp"] += PRIOR @ (p * p) / 2
        for side, number in (("x", NUM_RATERS // 2), ("y", NUM_RATERS - NUM_RATERS // 2)):
            moments[side] += PRIOR @ (p * (1 - p) / number) / 2
    variance = moments["pp"] - moments["p"] ** 2
    ccc = 2 * variance / (2 * variance + moments["x"] + moments["y"])
    uar = (right / support).mean(axis=1)
    return {"one": uar[0], "panel": uar[1], "CCC": ccc.mean()}


def share_above():
    """Share of speakers above the threshold by one rater's answers, by simulating very many of them."""
    rng, number = np.random.default_rng(10**6), 40_000
    truth, clarity = rng.choice(3, (number, SIZE), p=PRIOR), rng.choice(CLARITY, number)
    answers = drawn_answers(rng, truth, np.repeat(clarity, SIZE).reshape(number, SIZE))
    counts = (answers[..., 1:, None] == np.arange(3)).sum(axis=2)
    top = counts.max(axis=-1)
    target = np.where((counts == top[..., None]).sum(axis=-1) == 1, counts.argmax(axis=-1), -1)
    support = (target[..., None] == np.arange(3)).sum(axis=1)
    right = ((target[..., None] == np.arange(3)) & (answers[..., :1] == np.arange(3))).sum(axis=1)
    return 100 * passes(class_scores(right, support, support).uar, (THRESHOLD,)).mean()


def drawn_answers(rng, truth, clarity):
    """[..., NUM_RATERS] answers of as many raters."""
    is_right = rng.random((*truth.shape, NUM_RATERS)) < (clarity * SKILL[truth])[..., None]
    step = rng.integers(1, 3, is_right.shape)
    return np.where(is_right, truth[..., None], (truth[..., None] + step) % 3)


@pytest.mark.statistical
def test_raters_of_known_skill_score_it():
    """Mean scores of 300 corpora of 40 speakers are the known ones, and 95 % intervals cover these.

    UAR of one rater, of three against three others, class CCC of half against half, and the share of speakers above a
    threshold. Of 300 corpora such a share varies by 1.3 in 100.
    """
    known = known_scores() | {"share": share_above()}
    num_covered, estimates = collections.Counter(), collections.defaultdict(list)
    unit = np.repeat(np.arange(NUM_SPEAKERS), SIZE)
    for i in range(NUM_CORPORA):
        rng = np.random.default_rng(10_000 + i)
        truth = rng.choice(3, NUM_SPEAKERS * SIZE, p=PRIOR)
        answers = drawn_answers(rng, truth, np.repeat(rng.choice(CLARITY, NUM_SPEAKERS), SIZE))
        votes = np.concatenate([(answers[..., None] == np.arange(3)).sum(axis=1), np.zeros((len(truth), 1), int)], 1)
        number = votes.sum(axis=1)
        joints = {"one": raters.leave_one_out(votes), "panel": raters.panel_answers(votes, 3, 3)}
        rows = {("CCC", name): part for name, part in
                raters.share_sums(votes[:, :3], number // 2, number - number // 2).items()}  # fmt: skip
        for name, joint in joints.items():
            rows[name, "right"], rows[name, "support"], _ = raters.class_sums(joint)
        sums = {key: part.reshape(NUM_SPEAKERS, SIZE, 3).sum(axis=1) for key, part in rows.items()}
        sums["passing"] = raters.passing_by_draw(joints["one"], unit, NUM_SPEAKERS, (THRESHOLD,), i, 200)
        sums["num"] = np.ones(NUM_SPEAKERS)
        resampled = resampling.bootstrap(sums, means_of, 400, i)
        points = scores_of({key: part.sum(axis=0)[None] for key, part in sums.items()})
        for name, score in points.items():
            entry = intervals.entry(score, resampled[name], NUM_SPEAKERS)
            num_covered[name] += entry["low"] <= known[name] <= entry["high"]
            estimates[name].append(entry["value"])
    for name, values in estimates.items():
        assert 0.92 <= num_covered[name] / NUM_CORPORA <= 0.98, (name, num_covered[name] / NUM_CORPORA)
        assert abs(np.mean(values) - known[name]) < 0.25 * np.std(values), (name, np.mean(values), known[name])


def means_of(sums):
    return {name: score.means(np.ones((len(score.values), 1))) for name, score in scores_of(sums).items()}


def scores_of(sums):
    """Scores of one corpus or of resamples of it."""
    result, is_there = {}, np.ones(len(sums["num"]), bool)
    for name in ("one", "panel"):
        support = sums[name, "support"]
        result[name] = class_scores(sums[name, "right"], support, support).uar
    named = {intervals.MomentSum("s", name): sums["CCC", name] for name in ("num_rows", "x", "y", "xx", "yy", "xy")}
    moments: Moments = intervals.moments_of_sums(named, "s", np.zeros((2, 3)))
    result["CCC"] = moments.compute().ccc.mean(axis=1)
    result["share"] = 100 * sums["passing"][:, 0] / sums["num"]
    return {
        name: intervals.Score(value[:, None], is_there, sums["num"], is_share=name == "share")
        for name, value in result.items()
    }
