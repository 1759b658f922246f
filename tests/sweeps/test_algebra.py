"""The algebra of sweeps and the planner: points, validation, which of them share a program and an extraction."""

import dataclasses
import itertools

import pytest

from configs import crema_d, every_speaker, simulated
from seremo_jax.backbones import load
from seremo_jax.core import ensemble
from seremo_jax.core.config import Config, from_config_dict
from seremo_jax.sweeps import cost as sweep_cost
from seremo_jax.sweeps import plan
from seremo_jax.sweeps.algebra import SweepError, axis, chain, product, read, zipped
from tests.support import small_models


def _plan(points, most=None, **sections):
    tree = dataclasses.asdict(from_config_dict(simulated.get_config("tiny")))
    for section, values in sections.items():
        tree[section] |= values
    return plan.plan(from_config_dict(tree), points, None if most is None else lambda _: most)


def _members(planned):
    return [ensemble.members(program.config, 3) for program in planned.programs]


def test_product_zipped_and_chain_are_what_their_names_say():
    a, b = axis("a.x", (1, 2)), axis("b.y", (3, 4))
    assert product(a, b) == [{"a.x": x, "b.y": y} for x, y in itertools.product((1, 2), (3, 4))]
    assert zipped(a, b) == [{"a.x": 1, "b.y": 3}, {"a.x": 2, "b.y": 4}]
    assert chain(a, product(a, b)) == [*a, *product(a, b)]


@pytest.mark.parametrize(("variant", "num_folds"), [("subset24", 4), ("", 5), ("msp_podcast", 1)])
def test_the_frontier_of_every_speaker_is_one_program_of_40_heads_a_fold(variant, num_folds):
    base = every_speaker.get_config(variant)
    (program,) = plan.plan(from_config_dict(base), list(every_speaker.sweep_frontier())).programs
    assert (len(every_speaker.FRONTIER), program.num_members) == (40, 40 * num_folds)
    members = ensemble.members(program.config, 3 if num_folds == 1 else dict.fromkeys(range(num_folds), 3))
    systems = {dataclasses.replace(member, seed=0, fold=None) for member in members}
    assert len(systems) == 20
    for field, num in (
        ("speaker_kappa_s", 4),
        ("speaker_balance", 3),
        ("group_balance", 3),
        ("objective", 4),
        ("mixup", 3),
    ):
        assert len({getattr(member, field) for member in members}) == num
    if variant == "msp_podcast":
        assert program.config.eval.splits == ("development",)


def test_each_means_alone_is_one_program_with_the_plain_head_first():
    points = list(every_speaker.sweep_alone())
    (program,) = plan.plan(from_config_dict(every_speaker.get_config()), points).programs
    assert (len(points), program.num_members) == (40, 200)
    assert points[:2] == [{"train.seed": 0}, {"train.seed": 1}]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: axis("a.x", ()), "axis 'a.x' has no values"),
        (lambda: product(axis("a.x", (1,)), axis("a.x", (2,))), "two parts of a sweep set 'a.x': 1 and 2"),
        (lambda: zipped(axis("a.x", (1,)), axis("b.y", (2, 3))), "the parts have 1, 2 points"),
    ],
)
def test_wrong_algebra_is_refused(make, message):
    with pytest.raises(SweepError, match=message):
        make()


def test_a_sweep_is_found_by_its_name_and_others_are_listed():
    assert len(read(crema_d.__file__, "layers")) == len(read(crema_d.__file__, "sweep_layers")) == 13
    with pytest.raises(SweepError, match=r"no sweep 'nothing'; it has: layers, small_corpus"):
        read(crema_d.__file__, "nothing")
    with pytest.raises(SweepError, match="it has none"):
        read(simulated.__file__, "layers")


def test_points_that_differ_in_values_are_one_program_of_just_these_members():
    points = product(
        axis("optim.learning_rate", (1e-3, 2e-3, 3e-3, 4e-3)),
        axis("model.dropout", (0.0, 0.1, 0.2)),
        axis("loss.class_kind", ("ccc", "kl")),
    )
    planned = _plan(points, ensemble={"class_targets": ("votes",), "seeds": (0, 1)})
    assert [program.num_members for program in planned.programs] == [48]
    members = {(m.learning_rate, m.dropout, m.class_kind, m.seed) for m in _members(planned)[0]}
    assert members == {(*point.values(), seed) for point in points for seed in (0, 1)}
    assert planned.programs[0].points == tuple(range(24))


def test_points_scattered_in_their_product_bring_no_other_members():
    points = zipped(axis("optim.learning_rate", (1e-3, 2e-3, 3e-3)), axis("model.dropout", (0.0, 0.1, 0.2)))
    (members,) = _members(_plan(points, ensemble={"class_targets": (), "seeds": (0,)}))
    assert [(m.learning_rate, m.dropout) for m in members] == [tuple(point.values()) for point in points]


def test_shapes_part_programs_and_what_is_heard_parts_extractions():
    points = product(axis("model.gru_units", (8, 16)), axis("extract.dtype", ("float16", "float32")))
    planned = _plan(points)
    assert [(program.points, program.stage) for program in planned.programs] == [
        ((0,), "."), ((1,), "stages/00"), ((2,), "."), ((3,), "stages/00"),
    ]  # fmt: skip


def test_layers_of_their_own_share_one_store_and_one_program():
    (program,) = _plan(axis("model.layer", (0, 1, 2))).programs
    assert program.config.extract.layers == (0, 1, 2)
    assert ensemble.layers(ensemble.members(program.config, None)) == (0, 1, 2)


def test_packing_keeps_seeds_of_a_system_and_folds_together():
    seeds = {"ensemble": {"class_targets": (), "seeds": (0, 1, 2)}}
    points = axis("optim.learning_rate", (1e-3, 2e-3, 3e-3, 4e-3))
    planned = _plan(points, most=7, **seeds)
    assert [[m.learning_rate for m in members] for members in _members(planned)] == [
        [1e-3] * 3 + [2e-3] * 3, [3e-3] * 3 + [4e-3] * 3,
    ]  # fmt: skip
    assert planned.fingerprint == _plan(points, **seeds).fingerprint
    folds = {
        "data": {"split_kind": "kfold", "num_folds": 4},
        "model": {"layer": 2},
        "ensemble": {"class_targets": (), "folds": (0, 1, 2, 3), "seeds": (0,)},
    }
    planned = _plan(axis("optim.learning_rate", (1e-3, 2e-3)), most=3, **folds)
    assert [[m.fold for m in members] for members in _members(planned)] == [[0, 1, 2, 3]] * 2


def test_a_member_brings_its_other_folds():
    folds = {
        "data": {"split_kind": "kfold", "num_folds": 4},
        "model": {"layer": 2},
        "ensemble": {"class_targets": (), "folds": (0, 1, 2, 3), "seeds": (0,)},
    }
    (program,) = _plan(axis("model.dropout", (0.0, 0.1)), **folds).programs
    dropouts = [member.dropout for member in ensemble.members(program.config, 3)]
    for dropout in (0.0, 0.1):
        system = [place for place in range(8) if dropouts[place] == dropout]
        assert len(system) == 4
        assert plan.in_all_folds(program.config, system[:1]) == system


def test_every_wrong_point_is_named_before_anything_starts():
    points = [{"model.gru_unit": 3}, {"model.dropout": 0.1}, {"model.dropout": 2.0}, {"optim.learning_rate": 1e400}]
    with pytest.raises(SweepError) as caught:
        _plan(points)
    text = str(caught.value)
    assert "3 of 4 points are no valid settings" in text
    assert "point 0 (model.gru_unit=3)" in text
    assert "gru_units" in text
    assert "point 2 (model.dropout=2.0)" in text
    assert "point 3 (optim.learning_rate=inf)" in text


def test_points_are_scored_on_the_development_split_only():
    with pytest.raises(SweepError, match=r"eval\.splits: points are compared by their scores on the development"):
        _plan(axis("eval.splits", (("test",),)))
    planned = _plan(axis("model.dropout", (0.1, 0.2)), eval={"splits": ("test", "development"), "seed": 5})
    assert {program.config.eval.splits for program in planned.programs} == {("development",)}
    assert planned.programs[0].config.eval.seed == 5
    assert planned.evaluation["splits"] == ("test", "development")


def test_a_chosen_system_is_a_config_without_the_others():
    (program,) = _plan(product(axis("model.dropout", (0.0, 0.1)), axis("loss.class_kind", ("ccc", "kl")))).programs
    members = ensemble.members(program.config, 3)
    chosen = [
        i for i, m in enumerate(members) if (m.dropout, m.class_kind, m.class_target) == (0.1, "ccc", "consensus")
    ]
    alone = plan.alone(program.config, chosen, dataclasses.asdict(Config().eval))
    assert ensemble.members(alone, 3) == [members[i] for i in chosen]
    assert (alone.model.dropout, alone.ensemble.only, alone.eval.splits) == (0.1, (), ("test",))


def test_memory_decides_how_many_members_train_at_once(tmp_path, monkeypatch):
    """By the estimate, as there are no tables."""

    class Device:
        def __init__(self, num_bytes):
            self.num_bytes = num_bytes

        def memory_stats(self):
            return {"bytes_limit": self.num_bytes}

    config = from_config_dict(crema_d.get_config())
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, member_map="vmap"))
    cost = sweep_cost.member_cost(config)
    monkeypatch.setattr(sweep_cost.jax, "default_backend", lambda: "gpu")
    counts = []
    for num_devices, size in ((1, 10), (1, 20), (2, 20), (1, 0.01)):
        devices = [Device(int(size * cost.member_bytes / 0.7))] * num_devices
        monkeypatch.setattr(sweep_cost.jax, "devices", lambda devices=devices: devices)
        monkeypatch.setattr(sweep_cost.jax, "local_devices", lambda devices=devices: devices)
        counts.append(sweep_cost.most_members(config, tmp_path))
    # Up to rounding; never none.
    assert counts[0] in (9, 10)
    assert counts[1] in (19, 20)
    assert counts[2:] == [2 * counts[1], 1]


@pytest.mark.parametrize("folder", ["whisper", "wav2vec2/wavlm-base"])
def test_the_width_of_a_backbone_is_read_from_its_config(folder):
    config = from_config_dict(crema_d.get_config())
    costs = [
        sweep_cost.member_cost(dataclasses.replace(config, backbone=dataclasses.replace(config.backbone, name=name)))
        for name in (str(small_models.GOLDEN.parent / folder), "nowhere/at-all")
    ]
    width = load(small_models.GOLDEN.parent / folder).num_features
    top = dataclasses.replace(config, model=dataclasses.replace(config.model, top_features=width))
    assert costs[0] == sweep_cost.member_cost(top)
    assert costs[1].num_parameters > costs[0].num_parameters
