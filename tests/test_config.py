"""Settings: the file over the built-in run, flags over the file, and whatever is not understood is told."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from raynas.config import Config, check, content_hash, differences, load
from raynas.errors import UserError
from raynas.run import settings_of


def refused(*overrides: str, path: str | None = None) -> str:
    with pytest.raises(UserError) as mistake:
        load(path, overrides)
    assert "\n" not in str(mistake.value)
    return str(mistake.value)


def test_flags_override_the_file_and_the_file_the_built_in_run(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("seed = 3\n[training]\nsteps = 5\nbatch_size = 32\n")
    config = load(str(file), ["training.steps=7"], {"data.name": "cifar10"})
    assert (config.seed, config.training.steps, config.training.batch_size) == (3, 7, 32)
    assert config.data.name == "cifar10"
    assert config.retraining == load(None).retraining and config.members == load(None).members


@pytest.mark.parametrize(
    ("text", "value"),
    [("12", 12), ("1e-3", 1e-3), ("true", True), ('["a", "b"]', ["a", "b"]), ("word", "word"), ("a.b:c", "a.b:c")],
)
def test_a_flag_is_a_toml_value_or_a_bare_word(text: str, value: Any) -> None:
    assert load(None, [f"space.settings.x={text}"]).space.settings["x"] == value


def test_a_flag_reaches_one_entry_of_a_list_and_keeps_the_others() -> None:
    changed, built_in = load(None, ["members.1.settings.population_size=8"]).members, load(None).members
    assert changed[1].settings == {**built_in[1].settings, "population_size": 8}
    assert [one for place, one in enumerate(changed) if place != 1] == [
        one for place, one in enumerate(built_in) if place != 1
    ]


def test_resolved_settings_are_read_back_the_same() -> None:
    config = load(None, ["constraints.macs=3e6", "evaluation.workers=2", "selector.short_epochs=[1, 3]"])
    assert check(tomllib.loads(tomli_w.dumps(settings_of(config)))) == config


def test_a_whole_number_of_short_epochs_is_written_as_one() -> None:
    """Or the same command would find another folder than before there were parts of an epoch."""
    assert str(settings_of(check({"selector": {"short_epochs": [1, 3.0]}}))["selector"]["short_epochs"]) == "[1, 3]"
    assert settings_of(check({"selector": {"short_epochs": 0.2}}))["selector"]["short_epochs"] == [0.2]


def test_a_run_that_measures_no_cost_says_so() -> None:
    config = load(None, ['selector.cost=""', "evaluation.costs=[]"])
    assert check(tomllib.loads(tomli_w.dumps(settings_of(config)))) == config


@pytest.mark.parametrize(
    ("given", "meant"),
    [("0", "()"), ("3", "(3,)"), ("[]", "()"), ("[1, 3]", "(1, 3)"), ("0.2", "(0.2,)"), ("[0.5, 2.0]", "(0.5, 2)")],
)
def test_one_number_of_short_epochs_is_a_list_of_one_and_none_of_none(given: str, meant: str) -> None:
    assert str(load(None, [f"selector.short_epochs={given}"]).selector.short_epochs) == meant


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("training.step=1", "did you mean 'steps'?"),
        (
            "evaluation.head_images=9",
            'expected head = "fitted" where head_images is set, but got head_images = 9 alone',
        ),
        (
            "selector.proxy_images=9",
            'expected proxies, e.g. ["zico"], where proxy_images is set, but got proxy_images = 9',
        ),
        ("evaluation.fine_tune_learning_rate=1", "evaluation: expected fine_tune_steps, e.g. 5, where fine_tune_le"),
        ("trainin.steps=1", "did you mean 'training'?"),
        ("steps=1", "did you mean 'training.steps'"),
        ("training.epochs=1", "did you mean 'retraining.epochs'"),
        ("members.0.metod=x", "did you mean 'method'?"),
        ("members.0.foo=1", "'members.0.foo'"),
        ("training.steps=many", "training.steps: expected a valid integer"),
        (
            "table.reward=12",
            """but got 12; write it in quotes, as --set 'table.reward="12"'.""",
        ),
        ("training.steps=0", "training.steps: expected greater than or equal to 1, but got 0"),
        ("training.learning_rate=nan", "finite"),
        ("training.learning_rate=inf", "finite"),
        ("constraints.macs=nan", "finite"),
        ("constraints.macs=0", "greater than 0"),
        ("seed=-1", "greater than or equal to 0"),
        ("seed=9223372036854775808", "less than 9223372036854775808"),
        ("evaluation.score=accuracy", "'loss' or 'error'"),
        ("evaluation.costs=macs", "expected a list"),
        ("training=3", "training: expected a section of settings, but got 3"),
        ("space=x", """space: expected a section of settings, but got 'x'; set space.name = "x"."""),
        ("members=3", "members: expected a list"),
        ('members={method = "nsga2"}', "but got {'method': 'nsga2'}; write [[members]]"),
        ("members.nsga2.name=x", "below 5 in place of 'nsga2': 0 random_search, 1 regularized_evolution, 2 nsga2, 3"),
        ("members.0=x", "members.0: expected a section"),
        ("members.0.name=a/b", "members.0.name: expected letters, digits, _, - and . behind them"),
        ("members.0.name=.a", "members.0.name: expected letters, digits, _, - and . behind them"),
        ("members.²=4", "a number below"),
        ("members.9.method=x", "a number below"),
        ("training.steps.x=1", "training.steps"),
        ("training.replicas=3", "batch_size that 3 replicas can share"),
        ("training.gpus_per_replica=1.5", "training.gpus_per_replica: expected a share of a GPU or a whole number of"),
        ("evaluation.gpus_per_worker=2.5", "evaluation.gpus_per_worker: expected a share of a GPU or a whole number"),
        ("retraining.gpus_per_trial=1.1", "expected a share of a GPU or a whole number of them, but got 1.1; Ray"),
        ("constraints.flops=1", "constraints.flops: 'flops' is not among evaluation.costs"),
        (
            "constraints.latency_ms=1",
            "constraints.latency_ms: latency_ms is not among evaluation.costs; "
            """add --set 'evaluation.costs=["parameters","macs","latency_ms"]'.""",
        ),
        ("selector.cost=flops", "selector.cost: 'flops' is not among evaluation.costs"),
        ("selector.cost=latency_ms", """add --set 'evaluation.costs=["parameters","macs","latency_ms"]'."""),
        ('evaluation.costs=["latency"]', "unknown cost 'latency'; did you mean 'latency_ms'?"),
        ("selector.short_epochs=[3, 1]", "selector: expected short_epochs that rise, e.g. [1, 3, 9], but got [3, 1]"),
        ("selector.short_epochs=[1, 1]", "expected short_epochs that rise, e.g. [1, 3, 9], but got [1, 1]"),
        ("selector.short_epochs=[0, 1]", "selector.short_epochs.0: expected greater than 0, but got 0"),
        ("selector.short_epochs=-1", "selector.short_epochs.0: expected greater than 0, but got -1"),
        ('selector.short_epochs=["1"]', "selector.short_epochs.0: expected a valid number, but got '1'"),
        ("selector.short_epochs=[inf]", "selector.short_epochs.0: expected a finite number, but got inf"),
        ("selector.short_epochs=[true]", "selector.short_epochs.0: expected a valid number, but got True"),
        ("selector.short_epochs=few", "selector.short_epochs: expected a list, but got 'few'"),
        ("constraints.macs=true", "constraints.macs"),
        ("retraining.epochs=true", "retraining.epochs: expected a number, but got true"),
        ("evaluation.workers=false", "expected a number, but got false"),
        ("members.0.supernet_seed=true", "expected a number, but got true"),
        ("selector.short_epochs=true", "selector.short_epochs: expected a list, but got True"),
        ('evaluation.costs=["macs", "macs"]', "expected costs that differ, but got macs twice; name each once"),
        ('selector.proxies=["zico", "zico"]', "expected proxies that differ, but got zico twice; name each once"),
        ('selector.predictors=["forest", "a", "forest"]', "expected predictors that differ, but got forest twice"),
        ("training.steps", "section.key=value"),
        ("=3", "section.key=value"),
        ("training..steps=3", "section.key=value"),
        ("training.steps=[1", "expected a TOML value"),
        ("training.steps=", "expected a TOML value"),
    ],
)
def test_what_is_not_understood_is_told_with_its_place(override: str, told: str) -> None:
    assert told in refused(override)


def test_replicas_that_would_share_a_gpu_are_refused() -> None:
    said = refused("training.replicas=2", "training.gpus_per_replica=0.5")
    assert "training: expected a GPU for each of 2 replicas" in said and "got gpus_per_replica = 0.5;" in said


@pytest.mark.parametrize(("replicas", "gpus"), [(1, 0.5), (2, 0.0), (2, 1.0), (2, 2.0)])
def test_a_share_of_a_gpu_for_one_replica_and_whole_ones_for_several_are_taken(replicas: int, gpus: float) -> None:
    overrides = [f"training.replicas={replicas}", f"training.gpus_per_replica={gpus}"]
    assert load(None, overrides).training.gpus_per_replica == gpus


def test_several_mistakes_are_told_at_once() -> None:
    said = refused("training.steps=0", "search.evaluations=0")
    assert "training.steps" in said and "search.evaluations" in said


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"seed = \n", "line 1"), (b"\xff\xfe\x00", "UTF-8"), (None, "No such file"), (b"seed = 1\nseed = 2\n", "line 2")],
)
def test_a_file_that_cannot_be_read_is_told(content: bytes | None, told: str, tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    if content is not None:
        file.write_bytes(content)
    said = refused(path=str(file))
    assert told in said and str(file) in said
    assert "directory" in refused(path=str(tmp_path))


def test_random_search_joins_every_population_unless_switched_off() -> None:
    def methods(**search: Any) -> list[str]:
        config = check({"members": [{"method": "nsga2"}], "search": search})
        return [member.method for member in config.members]

    assert methods() == ["nsga2", "random_search"]  # last: the places in the file stay what they are
    assert methods(random_baseline=False) == ["nsga2"]
    with pytest.raises(UserError, match="random_baseline"):
        check({"members": [], "search": {"random_baseline": False}})


def test_members_get_names_of_their_own_and_keep_those_they_have() -> None:
    members = [
        {"method": "nsga2"},
        {"method": "nsga2"},
        {"method": "parsec", "name": "nsga2_2"},
        {"method": "a.b.nsga2"},
    ]
    named = [member.name for member in check({"members": members, "search": {"random_baseline": False}}).members]
    assert named == ["nsga2", "nsga2_3", "nsga2_2", "nsga2_4"]
    with pytest.raises(UserError, match="different names"):
        check({"members": [{"method": "nsga2", "name": "x"}, {"method": "parsec", "name": "x"}]})


def test_a_bare_name_is_a_space_that_is_known_or_a_module_of_the_users_own() -> None:
    def named(name: str) -> str:
        return check({"space": {"name": name}}).space.name

    assert named("nas_bench_macro") == named("search_spaces.nas_bench_macro") == "search_spaces.nas_bench_macro"
    assert named("my_space") == "my_space" and named("my_team.my_space") == "my_team.my_space"


def test_only_the_built_in_run_has_the_small_network() -> None:
    assert load(None).space.settings and not load(None, changes={"space.name": "nas_bench_201"}).space.settings


def test_equal_settings_have_equal_hashes_in_any_order() -> None:
    assert content_hash({"a": 1, "b": [1, 2]}) == content_hash({"b": [1, 2], "a": 1})
    assert content_hash({"a": 1}) != content_hash({"a": 2})
    assert content_hash(settings_of(load(None))) != content_hash(settings_of(load(None, ["seed=1"])))


def test_differences_name_the_dotted_keys() -> None:
    old = {"seed": 0, "training": {"steps": 1, "batch_size": 2}, "gone": 1}
    new = {"seed": 0, "training": {"steps": 3, "batch_size": 2}, "come": {"x": 1}}
    assert differences(old, new) == ["come", "gone", "training.steps"]
    assert not differences(old, old)


def test_settings_cannot_be_changed() -> None:
    config = Config()
    with pytest.raises(ValueError, match="frozen"):
        config.training.steps = 3  # type: ignore[misc]
