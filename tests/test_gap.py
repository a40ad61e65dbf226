"""The gap of a run: its numbers, its sentence, and the folder it is read from."""

import json
import math

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import kendalltau, spearmanr

from raynas.gap import Point, measure, measure_gap
from raynas.storage import Folder


def points(consensus, errors, parameters, supernet_errors=None, **scores):
    """Points in the order of a ranking's rows, best consensus first if it is given so."""
    count = len(errors)
    return [
        Point(
            name=f"net {index}",
            architecture=f"{index}-0",
            role="finalist" if index < 3 else "calibration",
            rank=index + 1,
            consensus=consensus[index],
            stand_alone_error=errors[index],
            parameters=parameters[index],
            supernet_error=(supernet_errors or [None] * count)[index],
            scores={label: values[index] for label, values in scores.items()},
        )
        for index in range(count)
    ]


def gap(*args, **kwargs):
    measured = measure(points(*args, **kwargs), seed=0, resamples=500)
    json.dumps(measured, allow_nan=False)
    return measured


def noisy(seed, count, noise):
    rng = np.random.default_rng(seed)
    errors = np.sort(rng.random(count))
    return (-errors + noise * rng.normal(size=count)).tolist(), errors.tolist(), rng.permutation(count).tolist()


def test_correlations_are_with_stand_alone_accuracy():
    consensus, errors, parameters = noisy(0, 15, 0.3)
    measured = gap(consensus, errors, parameters, uniform=parameters, fair=errors)
    accuracy = [1 - error for error in errors]
    assert measured["n"] == 15
    assert measured["tau"]["value"] == pytest.approx(kendalltau(consensus, accuracy).statistic)
    assert measured["rho"]["value"] == pytest.approx(spearmanr(consensus, accuracy).statistic)
    baseline = measured["baseline"]["parameters"]
    assert baseline["tau"]["value"] == pytest.approx(kendalltau(parameters, accuracy).statistic)
    assert measured["rankers"]["uniform"] == baseline
    assert measured["rankers"]["fair"]["tau"]["value"] == measured["rankers"]["fair"]["rho"]["value"] == -1
    for correlation in (measured["tau"], measured["rho"], *baseline.values()):
        assert -1 <= correlation["low"] < correlation["value"] < correlation["high"] <= 1


def test_the_file_has_the_agreed_keys():
    measured = gap(*noisy(0, 6, 0.1), uniform=[1.0, 2, 3, 4, 5, 6])
    correlations = {"tau", "rho"}
    assert set(measured) == {
        "n", "baseline", "rankers", "value_gap", "regret", "sentence", "points", *correlations
    }  # fmt: skip
    assert set(measured["tau"]) == {"value", "low", "high"}
    assert set(measured["baseline"]) == {"parameters"}
    assert set(measured["baseline"]["parameters"]) == set(measured["rankers"]["uniform"]) == correlations
    assert set(measured["points"][0]) == {
        "name", "architecture", "rank", "consensus", "stand_alone_error", "parameters", "role"
    }  # fmt: skip


def test_value_gap_and_regret_are_differences_of_accuracy():
    measured = gap([3, 2, 1], [0.10, 0.07, 0.20], [1, 2, 3], supernet_errors=[0.4, None, 0.3])
    assert measured["value_gap"] == pytest.approx((0.3 + 0.1) / 2)
    assert measured["regret"] == pytest.approx(0.03)  # the first has 90 %, the best 93 %
    assert gap([3, 2, 1], [0.10, 0.07, 0.20], [1, 2, 3])["value_gap"] is None


def test_a_ranking_that_beats_parameters_is_said_to():
    errors = [n / 20 for n in range(14)]
    consensus = [-n + 1.2 * (-1) ** n for n in range(14)]  # neighbours swapped
    parameters = [3, 9, 1, 12, 5, 0, 8, 2, 11, 4, 13, 7, 6, 10]
    measured = gap(consensus, errors, parameters)
    tau, against = measured["tau"], measured["baseline"]["parameters"]["tau"]["value"]
    assert measured["sentence"] == (
        f"This ranking beats counting parameters (tau {tau['value']:.2f} [{tau['low']:.2f}, {tau['high']:.2f}] "
        f"against {against:.2f}, n = 14)."
    )


def test_a_ranking_worse_than_parameters_is_not_trusted():
    errors = [n / 20 for n in range(14)]
    measured = gap([3, 9, 1, 12, 5, 0, 8, 2, 11, 4, 13, 7, 6, 10], errors, [-n + 1.2 * (-1) ** n for n in range(14)])
    assert measured["sentence"].startswith("Do not trust this ranking: counting parameters ranks better (tau ")
    assert "n = 14" in measured["sentence"]


def test_a_ranking_equal_to_parameters_is_not_told_apart():
    consensus, errors, _ = noisy(1, 12, 0.1)
    sentence = gap(consensus, errors, consensus)["sentence"]
    assert "with n = 12 it cannot be told apart from counting parameters" in sentence
    assert sentence.startswith("Do not trust this ranking further than the parameter count")
    assert "chance" not in sentence


def test_a_ranking_that_is_noise_is_not_told_apart_from_chance_either():
    sentence = gap([1, 5, 2, 6, 3, 4], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [3, 1, 6, 2, 5, 4])["sentence"]
    assert sentence.startswith("Do not trust")
    assert sentence.endswith("nor from chance.")


def test_beating_a_bad_baseline_is_no_proof():
    errors = [0.1, 0.2, 0.3, 0.4]
    sentence = gap([4, 3, 2, 1], errors, [1, 2, 3, 4])["sentence"]  # four in order: one chance in 24
    assert sentence.startswith("Do not trust this ranking: it beats counting parameters (tau 1.00 [-0.54, 1.00]")
    assert sentence.endswith("but cannot be told apart from chance.")


def test_rankings_of_noise_are_seldom_trusted():
    trusted = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        measured = gap(*(rng.permutation(8).tolist() for _ in range(3)))
        trusted += measured["sentence"].startswith("This ranking")
    assert trusted <= 4


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_too_few_are_said_to_be_too_few(count):
    measured = gap([3, 2, 1][:count], [0.1, 0.2, 0.3][:count], [3, 2, 1][:count])
    assert measured["n"] == count
    assert measured["sentence"].startswith(f"Do not trust this ranking yet: n = {count} ")


@pytest.mark.parametrize(
    "consensus, errors", [([1, 1, 1, 1, 1], [0.1, 0.2, 0.3, 0.4, 0.5]), ([1, 2, 3, 4, 5], [0.1] * 5)]
)
def test_equal_values_are_said_to_tell_nothing(consensus, errors):
    measured = gap(consensus, errors, [1, 2, 3, 4, 5])
    assert measured["tau"] == measured["rho"] == {"value": None, "low": None, "high": None}
    assert "too few different values" in measured["sentence"]


@pytest.mark.parametrize("parameters", [[7] * 10, [None] * 10])
def test_without_a_parameter_count_the_yardstick_is_chance(parameters):
    errors = [n / 20 for n in range(10)]
    good = gap([-n for n in range(10)], errors, parameters)
    assert good["sentence"].startswith("This ranking agrees with training from scratch (tau 1.00 [")
    assert good["baseline"]["parameters"]["tau"]["value"] is None
    bad = gap([1, 7, 2, 8, 4, 3, 9, 5, 6, 0], errors, parameters)
    assert "cannot be told apart from chance" in bad["sentence"]


@pytest.mark.parametrize("count", [6, 8, 12])
def test_a_perfect_ranking_of_few_is_no_certainty(count):
    order = list(range(count))
    up, down = (gap([sign * n for n in order], [-n / 20 for n in order], [0] * count) for sign in (1, -1))
    assert up["tau"]["value"] == up["tau"]["high"] == 1
    assert down["tau"] == {"value": -1, "low": -1, "high": -up["tau"]["low"]}
    # a normal distribution at the lower limit must be unlikely, and not impossible, to order as many perfectly
    for correlation in (math.sin(math.pi / 2 * up["tau"]["low"]), 2 * math.sin(math.pi / 6 * up["rho"]["low"])):
        rng = np.random.default_rng(count)
        truth = np.sort(rng.normal(size=(20_000, count)), axis=1)
        noise = rng.normal(size=truth.shape)
        predicted = correlation * truth + math.sqrt(1 - correlation**2) * noise
        assert 0.01 < np.mean(np.all(np.diff(predicted, axis=1) > 0, axis=1)) < 0.05


def test_what_failed_is_listed_and_not_counted():
    consensus, errors, parameters = noisy(0, 8, 0.2)
    whole = gap(consensus[1:], errors[1:], parameters[1:])
    measured = gap(consensus, [None, *errors[1:]], parameters)
    assert [measured[key] for key in ("n", "tau", "rho", "regret")] == [
        whole[key] for key in ("n", "tau", "rho", "regret")
    ]
    assert len(measured["points"]) == 8
    assert measured["points"][0]["stand_alone_error"] is None
    assert gap(consensus, [math.nan, *errors[1:]], parameters) == measured


def test_a_ranker_without_some_scores_is_compared_where_it_has_them():
    consensus, errors, parameters = noisy(0, 8, 0.2)
    measured = gap(consensus, errors, parameters, new=[math.nan, None, *consensus[2:]])
    assert measured["rankers"]["new"]["tau"] == gap(consensus[2:], errors[2:], parameters[2:])["tau"]


def test_the_gap_of_a_folder_is_that_of_its_files(tmp_path):
    run = Folder(str(tmp_path))
    consensus, errors, parameters = noisy(0, 6, 0.2)
    trained = [0, 2, 3, 4, 5]
    run.write("config.toml", b"seed = 5\n")
    names = [f"{index}-0" for index in range(6)]
    run.write_table(
        "ranking.parquet",
        pa.table(
            {
                "rank": [1, 2, 3, 4, 5, 6],
                "architecture": names,
                "name": [f"net {index}" for index in range(6)],
                "consensus": [float(value) for value in consensus],
                "held_out": [math.nan] * 6,
                "score_uniform": [1.0, math.nan, 3.0, 4.0, 5.0, 6.0],
                "rank_uniform": [5.0, math.nan, 4.0, 3.0, 2.0, 1.0],
                "parameters": [float(value) for value in parameters],
            }
        ),
    )
    for index in trained:
        place = "finalists/1" if index == 0 else f"calibration/{names[index]}"
        result = {"architecture": names[index], "role": place.split("/")[0].rstrip("s"), "failure": None}
        run.write_json(f"{place}/result.json", {**result, "validation_error": errors[index]})
    late = {"architecture": names, "uniform@9": [1.0, 2, 3, 4, 5, 6], "uniform@11": [1.0, 2, 3, 4, 6, 5]}
    run.write_table("snapshots.parquet", pa.table({key: column[::-1] for key, column in late.items()}))
    state = {"label": "uniform", "rule": "uniform", "settings": {"steps": 12}, "partitions": None, "seed": 0}
    run.write_json("supernets/abc/state.json", state)
    run.write_json("finalists/2/architecture.json", {})  # training: no result yet
    for member, error in (("one", 0.5), ("two", 0.7)):
        rows = {"canonical": ["0-0", "1-0", "2-0"], "error": [error, 0.1, None], "failure": [None, None, "NaN"]}
        run.write_table(f"evaluations/{member}.parquet", pa.table(rows))

    measured = measure_gap(run)

    assert run.read_json("gap.json") == measured
    assert measured["n"] == len(measured["points"]) == 5
    assert [point["rank"] for point in measured["points"]] == [1, 3, 4, 5, 6]
    assert [point["role"] for point in measured["points"]] == ["finalist"] + ["calibration"] * 4
    assert measured["value_gap"] == pytest.approx(0.6 - errors[0])
    expected = [[values[index] for index in trained] for values in (consensus, errors, parameters)]
    same = measure(points(*expected, uniform=[1.0, 3, 4, 5, 6]), seed=5)
    assert [measured[key] for key in ("tau", "rho", "baseline", "rankers", "regret", "sentence")] == [
        same[key] for key in ("tau", "rho", "baseline", "rankers", "regret", "sentence")
    ]
    assert measured["near_best"] is None  # of too few accuracies
    whole, steps = measured["stability"]
    assert whole["kind"] == "consensus" and whole["s_tau"] is None and whole["of"] == 5
    assert whole["gt_tau"] == pytest.approx(measured["tau"]["value"])
    assert steps["name"] == "uniform, 3 late steps"
    assert steps["architectures"] == 5  # the second has no last score
    assert steps["s_tau"] == pytest.approx((kendalltau(range(6), [0, 1, 2, 3, 5, 4]).statistic + 1 + 0.8) / 3)
    assert (
        measured["missing"].startswith("Not measured: agreement between seeds (") and "steps" not in measured["missing"]
    )


def test_what_calibrated_the_ranking_is_judged_by_what_the_others_said_of_it(tmp_path):
    run = Folder(str(tmp_path))
    run.write("config.toml", b"seed = 5\n")
    names = ["0-0", "1-0", "2-0", "3-0"]
    ranking = {"rank": [1, 2, 3, 4], "architecture": names, "name": names, "consensus": [0.9, 0.7, 0.5, 0.3]}
    run.write_table("ranking.parquet", pa.table({**ranking, "held_out": [math.nan, 0.2, math.nan, 0.6]}))
    for part, name in (("calibration", "1-0"), ("calibration", "3-0"), ("finalists", "1"), ("finalists", "4")):
        architecture = name if part == "calibration" else names[int(name) - 1]
        result = {"architecture": architecture, "role": part.rstrip("s"), "validation_error": 0.1}
        run.write_json(f"{part}/{name}/result.json", result)
    points = measure_gap(run)["points"]
    assert [(one["architecture"], one["role"], one["rank"], one["consensus"]) for one in points] == [
        ("0-0", "finalist", 1, 0.9),
        ("1-0", "calibration", 4, 0.2),
        ("3-0", "finalist", 3, 0.6),
    ]


def test_errors_on_training_images_are_not_compared_with_those_on_validation_images(tmp_path):
    run = Folder(str(tmp_path))
    run.write_table(
        "ranking.parquet", pa.table({"rank": [1], "architecture": ["0"], "name": ["0"], "consensus": [0.5]})
    )
    run.write_json("finalists/1/result.json", {"architecture": "0", "role": "finalist", "validation_error": 0.1})
    run.write_table("evaluations/one.parquet", pa.table({"canonical": ["0"], "error": [0.4]}))
    gaps = {}
    for images in ("validation", "train"):
        run.write("config.toml", f"seed = 5\n[evaluation]\nscored_on = '{images}'\n".encode())
        gaps[images] = measure_gap(run)["value_gap"]
    assert gaps == {"validation": pytest.approx(0.3), "train": None}


def many(run, images=1_000, chosen=0, third="zico"):
    """A run of 60 candidates, 30 of them trained: two finalists and the rest calibration, each a step worse."""
    rng = np.random.default_rng(0)
    names = [f"{index // 10}-{index % 10}" for index in range(60)]
    run.write("config.toml", b"seed = 5\n")
    scores = {f"score_{name}": -np.arange(60) + 9 * rng.normal(size=60) for name in ("uniform", "fair", third)}
    columns = {"rank": range(1, 61), "architecture": names, "name": names, "consensus": -np.arange(60.0)}
    finalist = [index in (chosen, 7) for index in range(60)]
    run.write_table("ranking.parquet", pa.table({**columns, **scores, "finalist": finalist}))
    for index in range(0, 60, 2):
        place = f"finalists/{index + 1}" if index == chosen else f"calibration/{names[index]}"
        figures = {"validation_error": 0.1 + 0.003 * index, "validation_images": images}
        result = {"architecture": names[index], "role": place.split("/")[0].rstrip("s"), **figures}
        run.write_json(f"{place}/result.json", result)
    return names


def test_how_likely_the_chosen_is_nearly_the_best_is_told_of_the_best_finalist(tmp_path):
    run = Folder(str(tmp_path))
    names = many(run)
    run.write_json("finalists/9/result.json", {"architecture": names[9], "role": "finalist", "validation_error": 0.0})
    near = measure_gap(run)["near_best"]  # the one without errors was a finalist of an older ranking
    assert near == {"name": names[0], "architecture": names[0], "within": 0.002, "probability": near["probability"]}
    assert 0 <= near["probability"] < 1


def test_short_trainings_are_known_as_such_when_it_is_told(tmp_path):
    """The same scores weigh otherwise as those of a training."""
    told = {}
    for third in ("zico", "short_1", "short_paths"):
        run = Folder(str(tmp_path / third))
        many(run, third=third)
        told[third] = measure_gap(run)["near_best"]["probability"]
    assert told["short_1"] != told["zico"] == told["short_paths"]


def test_a_finalist_that_a_calibration_architecture_beats_is_not_nearly_the_best(tmp_path):
    run = Folder(str(tmp_path))
    many(run, chosen=4)
    assert measure_gap(run)["near_best"]["probability"] == 0


def test_of_few_validation_images_it_is_not_told(tmp_path):
    run = Folder(str(tmp_path))
    many(run, images=499)
    assert measure_gap(run)["near_best"] is None
