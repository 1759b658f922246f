"""The member axis: product of the axes, order, names, the chosen layer."""

import dataclasses

import pytest

from seremo_jax.core import ensemble
from seremo_jax.core.artefacts import ArtefactError, write_json
from seremo_jax.core.config import from_config_dict


def test_product_of_axes_layers_outermost():
    config = from_config_dict(
        {
            "extract": {"layers": "all"},
            "ensemble": {"layers": (3, 1), "seeds": (7, 8), "class_targets": ("votes", "consensus")},
        }
    )
    members = ensemble.members(config, chosen_layer=None)
    assert [m.layer for m in members] == [3] * 4 + [1] * 4
    assert [m.class_target for m in members[:4]] == ["votes", "votes", "consensus", "consensus"]
    assert [m.seed for m in members[:4]] == [7, 8, 7, 8]
    assert len(set(ensemble.names(members))) == 8
    assert ensemble.names(members)[0] == "layer03-votes-seed7"
    assert ensemble.layers(members) == (1, 3)


def test_only_some_points_of_the_product():
    """Axes of unlike lengths: a number counts as in the list of all members."""
    axes = {"layers": (3, 1, 2), "seeds": (7, 8), "class_targets": ("votes",), "dropouts": (0.0, 0.1, 0.2, 0.3)}
    every, some = (
        ensemble.members(from_config_dict({"extract": {"layers": "all"}, "ensemble": axes | only}), None)
        for only in ({}, {"only": (0, 5, 18, 23)})
    )
    assert len(every) == 24
    assert some == [every[number] for number in (0, 5, 18, 23)]


def test_one_model_is_an_ensemble_of_one():
    config = from_config_dict({"model": {"layer": 4}, "train": {"seed": 9}, "targets": {"class_target": "consensus"}})
    (member,) = ensemble.members(config, chosen_layer=2)
    assert (member.layer, member.class_target, member.seed, member.fold) == (4, "consensus", 9, None)
    assert member.learning_rate == config.optim.learning_rate


def test_names_tell_what_differs():
    axes = {"learning_rates": (0.1, 0.2), "seeds": (3,)}
    names = ensemble.names(ensemble.members(from_config_dict({"model": {"layer": 4}, "ensemble": axes}), None))
    assert names == ["layer04-votes-learning_rate0.1-seed3", "layer04-votes-learning_rate0.2-seed3"]


def test_a_sum_of_layers_is_one_member():
    config = from_config_dict({"model": {"layer": "sum"}, "extract": {"layers": "all"}})
    (member,) = ensemble.members(config, None)
    assert member.layer == ensemble.SUM
    assert ensemble.layers([member]) == ()


def test_saliency_layer_must_be_there(tmp_path):
    config = from_config_dict({})
    assert ensemble.chosen_layer(tmp_path) is None
    with pytest.raises(ArtefactError, match=r"launch.saliency"):
        ensemble.members_in(tmp_path, config)
    write_json(tmp_path / "saliency.json", {"chosen": 5})
    (member,) = ensemble.members_in(tmp_path, config)
    assert member.layer == 5


@pytest.mark.parametrize(
    ("fields", "is_chosen", "is_sum", "layers"),
    [
        ({}, True, False, [7]),
        ({"model": {"layer": 3}}, False, False, [3]),
        ({"model": {"layer": "sum"}, "extract": {"layers": "all"}}, False, True, [ensemble.SUM]),
        ({"ensemble": {"layers": (1, 2)}, "extract": {"layers": "all"}}, False, False, [1, 2]),
    ],
)
def test_which_layer_members_read(fields, is_chosen, is_sum, layers):
    config = from_config_dict(fields)
    assert ensemble.needs_chosen_layer(config) == is_chosen
    assert ensemble.reads_layer_sum(config) == is_sum
    assert [member.layer for member in ensemble.members(config, 7)] == layers
    assert [member.layer for member in ensemble.members(config, None if not is_chosen else 7)] == layers


def test_a_mean_of_heads_is_a_system_of_its_own():
    config = from_config_dict({"model": {"layer": 4}, "ensemble": {"class_targets": ("votes", "consensus")}})
    votes, consensus = ensemble.members(config, None)
    members = [votes, consensus, dataclasses.replace(votes, seed=1), dataclasses.replace(votes, seed=ensemble.MEAN)]
    actual = ensemble.systems([vars(member) for member in members])
    assert [(rows, item["system"], item["seeds"]) for rows, item in actual] == [
        ([0, 2], "votes", (0, 1)),
        ([1], "consensus", (0,)),
        ([3], "mean of 2 heads, votes", (0, 1)),
    ]


def test_seeds_and_folds_tell_no_systems_apart():
    like = ensemble.members(from_config_dict({"model": {"layer": 3}}), None)[0]
    member = vars(dataclasses.replace(like, fold=None, seed=0))
    members = [member | {"fold": fold, "seed": seed} for fold in (0, 1) for seed in (0, 1)]
    ((rows, about),) = ensemble.systems(members)
    assert rows == [0, 1, 2, 3]
    assert about["seeds"] == (0, 1)
    assert len(ensemble.systems([*members, member | {"class_target": "consensus"}])) == 2


def test_a_layer_chosen_fold_by_fold_is_one_system():
    """Its members read different layers; once folds are pooled they are one member of no single layer."""
    data, axes = {"split_kind": "kfold"}, {"folds": (0, 2), "seeds": (1, 2)}
    config = from_config_dict({"data": data, "ensemble": axes})
    members = ensemble.members(config, {0: 3, 2: 7})
    assert [(m.fold, m.layer, m.seed) for m in members] == [(0, 3, 1), (0, 3, 2), (2, 7, 1), (2, 7, 2)]
    assert ensemble.layers(members) == (3, 7)
    assert ensemble.names(members)[2] == "layer07-votes-fold2-seed1"
    ((rows, about),) = ensemble.systems([vars(member) for member in members])
    assert (rows, about["layer"], about["seeds"], about["system"]) == ([0, 1, 2, 3], ensemble.BY_FOLD, (1, 2), "votes")
    pooled = [ensemble.without_fold(member) for member in members]
    assert len(set(pooled)) == 2
    assert ensemble.without_fold(pooled[0]) == pooled[0]
    assert ensemble.systems([vars(member) for member in pooled[:2]])[0][1]["axes"] == about["axes"] | {"num_heads": 2}
    assert [ensemble.stands_for(pooled[0], member) for member in members] == [True, False, True, False]
    assert [ensemble.layer_word(m.layer) for m in (*pooled[:1], *members[:1])] == ["by fold", "3"]
    given = ensemble.members(from_config_dict({"data": data, "ensemble": axes, "model": {"layer": 3}}), None)
    assert not any(member.is_layer_by_fold for member in given)
