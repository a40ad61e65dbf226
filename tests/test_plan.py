"""A plan resolves every name of a configuration, shares supernets, and tells wrong settings before anything runs."""

from __future__ import annotations

import math
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from raynas.config import check, load
from raynas.data import load as load_data
from raynas.errors import UserError
from raynas.plan import Plan, build_strategy, build_supernet, make_plan
from raynas.run import settings_of
from raynas.strategy import knows_limits


def plan(*members: dict[str, Any], **sections: Any) -> Plan:
    return make_plan(check({"members": list(members), "search": {"random_baseline": False}, **sections}))


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    path = list(sys.path)
    yield tmp_path
    sys.path[:] = path
    sys.modules.pop("my_space", None)
    sys.modules.pop("my_method", None)


def test_members_share_a_supernet_exactly_where_all_that_its_weights_depend_on_is_equal() -> None:
    base = {"method": "random_search"}
    same = plan(
        base, {"method": "regularized_evolution"}, {"method": "optuna_tpe", "training": {"checkpoint_every_s": 1}}
    )
    assert len(same.supernets) == 1 and {member.supernet for member in same.members} == {same.supernets[0].id}
    for other in ({"training_rule": "fair"}, {"supernet_seed": 9}, {"training": {"steps": 3}}):
        different = plan(base, {**base, **other})
        assert len(different.supernets) == 2
        assert len({member.supernet for member in different.members}) == 2
    moved = plan(base, space={"name": "nas_bench_201", "settings": {"channels": 3}})
    assert moved.supernets[0].id != same.supernets[0].id


def test_supernets_are_labelled_by_their_rule_and_numbered_where_it_is_not_enough() -> None:
    labels = plan(
        {"method": "random_search"},
        {"method": "random_search", "supernet_seed": 1},
        {"method": "random_search", "training_rule": "fair"},
        {"method": "random_search", "supernet_seed": 2},
    )
    assert [supernet.label for supernet in labels.supernets] == ["uniform", "uniform_2", "fair", "uniform_3"]


@pytest.mark.parametrize(
    ("member", "sections", "told"),
    [
        (
            {},
            {"space": {"name": "vit_elastic"}},
            "a space that names a network's keys .SearchSpace.synonyms., but vit_elastic does not",
        ),
        ({"partitions": {}, "training": {"steps": 10}}, {}, "trained on all keys, but partitions are not"),
        ({"rule_settings": {"sampling": "canonical"}}, {}, "nor is what sampling = .canonical. or .distinct. trains"),
    ],
)
def test_several_keys_are_refused_where_they_have_no_weights(
    member: dict[str, Any], sections: dict[str, Any], told: str
) -> None:
    with pytest.raises(UserError, match=told):
        plan({"method": "random_search", **member}, evaluation={"keys": 2}, **sections)


def test_a_supernet_that_is_split_is_one_ranker_made_of_a_warm_up_and_its_partitions() -> None:
    found = plan({"method": "few_shot", "partitions": {"groups": 3}, "training": {"steps": 10}})
    warm_up, *parts, whole = found.supernets
    assert [one.label for one in found.supernets] == [
        "uniform_few_shot_warm_up",
        *(f"uniform_few_shot_part_{part}" for part in (1, 2, 3)),
        "uniform_few_shot",
    ]
    assert found.rankers == (whole,) and found.members[0].supernet == whole.id
    assert (warm_up.begin, warm_up.end) == (0, 5) and {(one.begin, one.end) for one in parts} == {(5, 10)}
    assert whole.parts == tuple(one.id for one in parts) and [one.part for one in parts] == [0, 1, 2]
    assert len({one.id for one in found.supernets}) == 5
    assert {one.split.warm_up for one in (*parts, whole) if one.split} == {warm_up.id}


def test_splits_share_what_does_not_depend_on_what_they_differ_in() -> None:
    def ids(**partitions: Any) -> list[str]:
        return [one.id for one in plan({"method": "few_shot", "partitions": partitions}).supernets]

    warm_up, first, second, whole = ids()
    assert ids(comparable="none")[:3] == [warm_up, first, second] and ids(comparable="none")[3] != whole
    assert ids(by="random")[0] == warm_up and not {first, second, whole} & {*ids(by="random")}
    assert not {warm_up, first, second, whole} & {*ids(warm_up=0.25)}
    shared = plan(
        {"method": "random_search"},
        {"method": "few_shot"},
        {"method": "nsga2", "partitions": {}},
        {"method": "few_shot", "partitions": {"comparable": "shift_and_scale"}},
    )
    assert [one.label for one in shared.rankers] == ["uniform", "uniform_few_shot", "uniform_few_shot_2"]
    assert len(shared.supernets) == 1 + 4 + 1


def test_a_plan_with_partitions_is_the_same_after_its_settings_were_written_down() -> None:
    config = check({"members": [{"method": "few_shot", "partitions": {"groups": 5}}, {"method": "few_shot"}]})
    again = check(tomllib.loads(tomli_w.dumps(settings_of(config))))
    assert make_plan(again).supernets == make_plan(config).supernets


def test_a_supernets_id_hangs_on_the_crops_that_it_is_trained_with_and_not_on_where_they_are_set() -> None:
    def identity(data: int, training: dict[str, Any], member: dict[str, Any]) -> str:
        one = {"method": "random_search", "training": member}
        return plan(one, data={"crop_padding": data}, training=training).supernets[0].id

    none = {identity(0, {}, {}), identity(2, {"crop_padding": 0}, {}), identity(2, {}, {"crop_padding": 0})}
    two = {
        identity(2, {}, {}),
        identity(0, {"crop_padding": 2}, {}),
        identity(2, {"crop_padding": 0}, {"crop_padding": 2}),
    }
    assert len(none) == len(two) == 1 and none != two


@pytest.mark.parametrize(
    ("training", "without"),
    [
        ({"averaging": 0.25, "averaging_decay": 0.99}, {"averaging": 0.0}),
        ({"optimizer": "muon", "muon_turn": 0.03}, {"optimizer": "sgd"}),
    ],
)
def test_a_member_can_leave_out_what_other_members_train_with(
    training: dict[str, Any], without: dict[str, Any]
) -> None:
    changed = plan({"method": "random_search", "training": without}, training=training)
    assert changed.supernets == plan({"method": "random_search"}).supernets
    assert changed.supernets != plan({"method": "random_search"}, training=training).supernets


def test_a_supernets_id_hangs_on_the_runs_seed_which_says_what_images_it_is_trained_on() -> None:
    def identity(seed: int, **member: Any) -> str:
        return plan({"method": "random_search", **member}, seed=seed).supernets[0].id

    assert identity(1) == identity(1, supernet_seed=1) != identity(0, supernet_seed=1)


def test_a_members_seed_hangs_on_its_name_and_the_runs_seed_alone() -> None:
    first, second = plan({"method": "random_search"}, {"method": "random_search"}).members
    alone = plan({"method": "random_search", "name": "random_search_2"}).members[0]
    assert first.seed != second.seed == alone.seed != plan({"method": "random_search"}, seed=1).members[0].seed


def test_a_strategy_that_aims_below_limits_is_given_those_of_its_objectives() -> None:
    found = plan({"method": "netadapt"}, {"method": "nsga2"}, constraints={"macs": 1e5, "parameters": 9.0})
    assert [member.limits for member in found.members] == [(math.inf, 1e5)] * 2
    descent, other = (build_strategy(member, found.space, ()) for member in found.members)
    assert knows_limits(type(descent)) and not knows_limits(type(other))


def test_a_method_that_needs_a_setting_of_the_space_refuses_a_space_without() -> None:
    space = {"name": "nas_bench_macro", "settings": {"channels": 8}}
    told = (
        r"members.scarlet: scarlet needs space.settings.stabiliser = true; set it, .*mobilenet_chain, nas_bench_macro\)"
    )
    with pytest.raises(UserError, match=told):
        plan({"method": "scarlet"}, space=space)
    with pytest.raises(UserError, match=r"space.settings.growing = true; set it, in a space that has it \(pnas_cell\)"):
        plan({"method": "pnas"}, space=space)
    space["settings"] = {"channels": 8, "stabiliser": True}
    (scarlet,) = plan({"method": "scarlet"}, space=space).members
    assert scarlet.objectives == ("loss", "macs", "parameters")


@pytest.mark.parametrize(
    ("override", "told"),
    [
        (
            "members.1.settings.populaton_size=3",
            "'members.regularized_evolution.settings.populaton_size'; did you mean",
        ),
        (
            "members.1.settings.population_size=x",
            "members.regularized_evolution.settings.population_size: expected a valid",
        ),
        ("members.1.settings.population_size=0", "members.regularized_evolution.settings: tournament_size must lie"),
        ("members.1.settings.tournament_size=1000", "members.regularized_evolution.settings: tournament_size must lie"),
        ("members.2.settings.population_size=1", "members.nsga2.settings: population_size must be at least 2"),
        ("members.3.settings.startup=1.5", "members.optuna_tpe.settings.startup: expected a valid integer"),
        ("members.0.settings.seed=3", "unknown setting 'members.random_search.settings.seed'"),
        ("members.4.rule_settings.sampels=3", "did you mean 'samples'?"),
        (
            "members.4.rule_settings.samples=0",
            "members.parsec.rule_settings: expected samples >= 1 and temperature > 0, but got",
        ),
        (
            "members.4.rule_settings.distribution_learning_rate=-1",
            "members.parsec.rule_settings: Invalid learning rate",
        ),
        ("members.4.training.steps=0", "members.parsec.training.steps: expected greater than or equal to 1"),
        ("members.4.training.setps=3", "'members.parsec.training.setps'; did you mean 'steps'?"),
        (
            "members.0.partitions.groups=6",
            "members.random_search.partitions: groups = 6 is more than any block of",
        ),
        (
            "members.0.partitions.groups=1",
            "partitions.groups: expected greater than or equal to 2, but got 1",
        ),
        (
            'members.0.partitions.blocks=["op30"]',
            "members.random_search.partitions: unknown block 'op30' in blocks; did you mean 'op",
        ),
        ('members.0.partitions.blocks=["op03", "op03"]', "expected different blocks, but got op03, op03; name each"),
        (
            'members.0.partitions={groups = 5, blocks = ["op01", "op02", "op03"]}',
            "expected at most 64 partitions, but 5 groups of 3 blocks are 125; lower groups or name fewer blocks",
        ),
        ("members.0.partitions.blocks=[]", "partitions.blocks: expected at least one entry, but got none; name one"),
        ("members.0.partitions.warm_up=1", "members.0.partitions.warm_up: expected less than 1, but got 1"),
        ("members.0.partitions.warm_up=0.0001", "warm_up = 0.0001 of 800 steps leaves 0 for the warm-up and 800"),
        (
            "members.0.partitions.by=gradients",
            "partitions.by: expected 'gradient', 'lexicographic' or 'random'",
        ),
        ("members.0.partitions.group=3", "'members.0.partitions.group'; did you mean 'groups'?"),
        (
            "members.4.training={steps = 10, snapshots = 3}",
            "members.parsec.training: expected at most 2 snapshots of the late ones of 10 steps, but got 3; lower",
        ),
        (
            "members.0={method = 'few_shot', partitions = {warm_up = 0.9}, training = {snapshots = 3}}",
            "members.few_shot.partitions.warm_up = 0.9 leaves the partitions fewer than training.snapshots = 3 late",
        ),
        ('members.0.objectives=["eror"]', "did you mean 'error'?"),
        ("members.0.training_rule=unifrm", "did you mean 'uniform'?"),
        ("selector.aggregator=bord", "did you mean 'borda'?"),
        ('selector.proxies=["naswto"]', "unknown proxy 'naswto'; did you mean 'naswot'?"),
        ('selector.predictors=["random_forrest"]', "unknown predictor 'random_forrest'; did you mean 'random_forest'?"),
        ("space.name=nas_bench_20", "did you mean 'nas_bench_201'?"),
    ],
)
def test_a_wrong_name_or_setting_is_told_with_its_place(override: str, told: str) -> None:
    with pytest.raises(UserError) as mistake:
        make_plan(load(None, [override]))
    assert told in str(mistake.value) and "\n" not in str(mistake.value)


@pytest.mark.parametrize("by", ["gradient", "lexicographic"])
@pytest.mark.parametrize(
    ("rule", "canonical", "told"),
    [("fair", "None", "blocks of one size"), ("uniform", "alike", "at least 10 in 20,000 draws")],
)
def test_a_rule_that_cannot_train_a_partition_is_told_before_the_warm_up_is_trained(
    by: str, rule: str, canonical: str, told: str, own: Path
) -> None:
    space = (
        "from raynas.space import SearchSpace, ChoiceBlock\ndef alike(key):\n    return (0, key[1])\nsupernet = None\n"
    )
    blocks = "tuple(ChoiceBlock(one, ('x', 'y')) for one in 'ab')"
    (own / "my_space.py").write_text(f"{space}SPACE = SearchSpace('mine', {blocks}, canonical={canonical})\n")
    member = {"method": "few_shot", "training_rule": rule, "rule_settings": {"sampling": "distinct"}}
    name = {"name": "my_space"}
    assert plan({**member, "method": "random_search"}, space=name).supernets
    with pytest.raises(UserError, match=f"^members.few_shot.rule_settings, for a partition: .*{told}.*; take"):
        plan({**member, "partitions": {"by": by}}, space=name)


def test_a_rule_that_can_train_every_partition_is_not_refused() -> None:
    distinct = {"method": "few_shot", "rule_settings": {"sampling": "distinct"}}
    assert plan(distinct).supernets and plan({**distinct, "partitions": {"by": "lexicographic"}}).supernets


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"chanels": 3}, "unknown setting 'space.settings.chanels'; did you mean 'channels'?"),
        ({"channels": "x"}, "space.settings.channels: expected a valid integer"),
        ({"channels": 4.5}, "space.settings.channels: expected a valid integer"),
        ({"channels": 0}, "space.settings: expected channels"),
        ({"classes": 3}, "unknown setting 'space.settings.classes'"),
    ],
)
def test_wrong_settings_of_a_supernet_are_told(settings: dict[str, Any], told: str) -> None:
    config = check({"space": {"name": "nas_bench_201", "settings": settings}})
    with pytest.raises(UserError) as mistake:
        build_supernet(config, load_data("digits"), seed=0)
    assert told in str(mistake.value)


SPACE = (
    "from raynas.space import SearchSpace, ChoiceBlock\nSPACE = SearchSpace('mine', (ChoiceBlock('a', ('x', 'y')),))\n"
)


@pytest.mark.parametrize(
    ("function", "told"),
    [
        ("def supernet(*, in_channels, classes, resolution, width):\n    ...\n", "space.settings.width is missing"),
        ("def supernet(channels):\n    ...\n", r"my_space.supernet\(channels\) cannot be called with in_channels, cl"),
        ("def supernet(*, in_channels, classes, resolution):\n    return nothing\n", r"my_space\.py:4 with NameError"),
        ("def supernet(*, in_channels, classes, resolution):\n    raise ValueError('odd')\n", "space.settings: odd"),
        (
            "def supernet(**_):\n    raise RuntimeError('out of memory: 9 bytes')\n",
            "space.settings: expected what fits into memory, but out of memory: 9 bytes; make it smaller",
        ),
    ],
)
def test_a_users_own_supernet_that_cannot_be_built_is_told(function: str, told: str, own: Path) -> None:
    (own / "my_space.py").write_text(SPACE + function)
    with pytest.raises(UserError, match=told):
        build_supernet(check({"space": {"name": "my_space"}}), load_data("digits"), seed=0)


def test_a_users_own_settings_are_held_to_their_annotations_where_these_are_known(own: Path) -> None:
    source = (
        "from __future__ import annotations\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\n"
    )
    (own / "my_space.py").write_text(
        source
        + "from raynas.supernet import Supernet\n"
        + SPACE
        + "def supernet(*, in_channels, classes, resolution, a: int, b: torch.Tensor = None):\n"
        + "    network = Supernet()\n    network.a = a\n    return network\n"
    )
    config = check({"space": {"name": "my_space", "settings": {"a": 3}}})
    assert build_supernet(config, load_data("digits"), seed=0).a == 3


def test_what_is_no_space_or_no_method_is_told(own: Path) -> None:
    (own / "my_space.py").write_text("SPACE = 3\n")
    with pytest.raises(UserError, match=r"my_space is no search space: expected SPACE and supernet\(\)"):
        make_plan(check({"space": {"name": "my_space"}}))
    (own / "my_method.py").write_text("METHOD = 3\n")
    with pytest.raises(UserError, match="as METHOD of my_method, but got 3"):
        plan({"method": "my_method"})
