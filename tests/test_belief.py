"""How far rankers are to be believed, in figures and in words."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from raynas import seeds
from raynas.aggregators.reliability import measure
from raynas.belief import (
    entries,
    front_in_words,
    on_front,
    race_in_words,
    rows,
    sentence,
    undecided,
    undecided_in_words,
)


def agreement(*noises: float, names: tuple[str, ...], calibrated: int = 0) -> dict[str, object]:
    """Of rankers that see the truth through noise of these standard deviations."""
    rng = seeds.generator(0, "belief")
    truth_A = rng.normal(size=300)
    scores_RA = truth_A + np.array(noises)[:, None] * rng.normal(size=(len(noises), 300))
    accuracy_A = np.where(np.arange(300) < calibrated, truth_A, np.nan)
    return {"aggregator": "reliability", "belief": entries(names, measure(scores_RA, calibration_A=accuracy_A))}


def test_the_better_ranker_comes_first_and_the_sentence_names_it() -> None:
    found = agreement(1.0, 0.3, 3.0, names=("fair", "uniform", "snas"))
    assert [row[0] for row in rows(found)] == ["uniform", "fair", "snas"]
    told = sentence(found)
    assert told.startswith("Believed most: uniform (weight +0.") and "least: snas (weight +0.1" in told
    assert "untrained" not in told


def test_it_is_told_where_a_proxy_is_believed_more_than_every_supernet() -> None:
    names = ("fair", "uniform", "proxy_zico")
    told = sentence(agreement(2.0, 2.0, 0.1, names=names, calibrated=40))
    assert told.startswith("Believed most: proxy_zico") and told.endswith("believed more than every supernet.")


def test_a_predictor_is_neither_a_supernet_nor_what_beats_them() -> None:
    names = ("predictor_random_forest", "uniform", "proxy_zico")
    leads = sentence(agreement(0.1, 2.0, 2.0, names=names, calibrated=40))
    assert leads.startswith("Believed most: predictor_random_forest") and "every supernet" not in leads
    follows = sentence(agreement(0.2, 2.0, 0.1, names=names, calibrated=40))
    assert follows.startswith("Believed most: proxy_zico") and follows.endswith("believed more than every supernet.")


def test_an_uncertain_lead_of_a_proxy_is_not_told() -> None:
    found = agreement(2.0, 2.0, 0.1, names=("fair", "uniform", "proxy_zico"), calibrated=40)
    for one in found["belief"]:  # type: ignore[attr-defined]
        one["weight_error"] = 0.9
    assert "untrained" not in sentence(found)


def test_nothing_is_said_of_belief_where_the_aggregator_believes_all_alike() -> None:
    assert sentence({**agreement(1.0, 2.0, 3.0, names=("a", "b", "c")), "aggregator": "borda"}) == ""


def test_of_proxies_alone_there_is_no_supernet_to_be_believed_less() -> None:
    assert "supernet" not in sentence(agreement(1.0, 2.0, 3.0, names=("proxy_a", "proxy_b", "proxy_c")))


def test_who_may_be_the_best_becomes_fewer_as_more_is_known() -> None:
    rng = seeds.generator(0, "undecided")
    truth_A = rng.normal(size=300)
    counts = []
    for noise, calibrated in ((1.0, 5), (0.3, 5), (0.3, 100)):
        accuracy_A = np.where(np.arange(300) < calibrated, truth_A, np.nan)
        open_A = undecided(measure(truth_A + noise * rng.normal(size=(4, 300)), calibration_A=accuracy_A))
        assert open_A[np.argmax(truth_A)]
        counts.append(int(open_A.sum()))
    assert counts == sorted(counts, reverse=True) and counts[0] > 2 * counts[-1]


@pytest.mark.parametrize("noise", [0.3, 3.0])
def test_who_may_be_among_more_are_those_who_may_be_among_fewer_and_others(noise: float) -> None:
    rng = seeds.generator(0, "undecided")
    trust = measure(rng.normal(size=60) + noise * rng.normal(size=(4, 60)))
    order = np.argsort(-trust.merit_A)
    before_A = np.zeros(60, dtype=bool)
    for count in (1, 2, 5, 30, 60, 61):
        open_A = undecided(trust, count)
        assert open_A[order[:count]].all() and open_A[before_A].all()
        before_A = open_A
    assert before_A.all()


def test_of_whom_nobody_says_anything_none_may_be_among_the_best() -> None:
    trust = measure(np.array([[0.3, 0.1, 0.2], [0.4, 0.3, 0.0]]))
    gone = replace(trust, merit_A=np.array([np.nan, 1.0, np.nan]))
    assert undecided(gone, 2).tolist() == [False, True, False]
    assert not undecided(replace(trust, merit_A=np.full(3, np.nan)), 2).any()


def test_an_uncalibrated_ranking_does_not_say_who_may_be_the_best() -> None:
    assert undecided_in_words({}) == undecided_in_words({"undecided": None, "candidates": 5}) == ""


def test_the_order_of_those_that_may_be_the_best_is_not_to_be_trusted() -> None:
    told = undecided_in_words({"undecided": 3, "last_undecided": 5, "candidates": 50})
    assert told.startswith("The best of the 50 candidates is one of 3 ")
    assert told.endswith(" Do not trust the order within the top 5.")
    assert "order" not in undecided_in_words({"undecided": 1, "last_undecided": 1, "candidates": 50})


def test_who_may_be_on_the_front_is_counted_and_an_uncalibrated_ranking_says_what_it_does_not_know() -> None:
    front = on_front(np.array([0.0, 0.009, 0.01, 0.3, 0.5, 1.0]))
    assert front == {"likely": 2, "possible": 4}

    def said(calibrated: int, aggregator: str = "reliability") -> str:
        return front_in_words(
            {"front": front, "candidates": 6, "calibrated": calibrated, "aggregator": aggregator, "undecided": None}
        )

    told = said(2)
    assert "0.5 or more: 2 of 6 candidates; 4 may be" in told and "not calibrated" not in told
    assert said(0).startswith(f"{told} This ranking is not") and said(1) == said(0)
    assert said(2, "borda") == f"{told[:-1]}, as reliability sees it."
    assert front_in_words({"front": None, "candidates": 6}) == front_in_words({}) == ""


def test_short_trainings_are_told_and_whether_they_settle_who_the_best_are() -> None:
    trained = [{"epochs": 0.25, "candidates": 120}, {"epochs": 3, "candidates": 47}]
    told = "Short trainings (candidates for epochs): 120 for 0.25, 47 for 3"

    def said(best: int, undecided: int | None) -> str:
        return race_in_words({"race": {"trained": trained, "best": best, "undecided": undecided}})

    assert race_in_words({}) == ""
    assert said(3, None) == f"{told}."  # not calibrated
    assert said(3, 3) == f"{told}; the 3 best are settled."
    assert said(3, 12) == f"{told}; the 3 best are not settled: 12 candidates are open."
    assert said(1, 2) == f"{told}; the best is not settled: 2 candidates are open."


def test_one_ranker_is_not_compared() -> None:
    found = agreement(1.0, names=("fair",))
    assert sentence(found) == "" and len(rows(found)) == 1
    assert sentence({}) == "" and rows({}) == []


def test_two_rankers_have_no_errors() -> None:
    first, _ = agreement(1.0, 2.0, names=("a", "b"))["belief"]  # type: ignore[misc]
    assert first["agreement_error"] is None and first["weight_error"] is None
