"""A member's study: what Optuna reads back from the file in the run's folder."""

import math
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from raynas import config
from raynas.architecture import decode
from raynas.distributed import population
from raynas.evaluation import Evaluation
from raynas.plan import make_plan
from raynas.space import ChoiceBlock, SearchSpace
from raynas.storage import Folder
from raynas.study_file import StudyFile

SPACE = SearchSpace("small", tuple(ChoiceBlock("same name", ("skip", "conv")) for _ in range(3)))
MEASURED = ("loss", "error", "macs")


def read(folder, member):
    storage = JournalStorage(JournalFileBackend(str(Path(folder) / "studies" / f"{member}.log")))
    return optuna.load_study(study_name=member, storage=storage)


def test_optuna_loads_what_was_written_after_each_batch(tmp_path):
    file = StudyFile(Folder(str(tmp_path)), "gp", SPACE, MEASURED, ("error",))
    batches = [
        [Evaluation((0, 1, 0), (2.0, 0.5, 7.0)), Evaluation((1, 1, 1), (), "constraint: macs")],
        [Evaluation((1, 0, 0), (1.0, 0.25, 9.0))],
    ]
    told = []
    for batch in batches:
        file.append(batch)
        file.write()
        told += batch
        study = read(tmp_path, "gp")
        assert [one.state for one in study.trials] == [
            TrialState.COMPLETE if one.objectives else TrialState.FAIL for one in told
        ]
    assert study.best_params == {"0_same name": "conv", "1_same name": "skip", "2_same name": "skip"}
    assert study.best_value == 0.25
    assert study.metric_names == ["error"]
    assert [one.user_attrs["architecture"] for one in study.trials] == ["0-1-0", "1-1-1", "1-0-0"]
    assert study.trials[0].user_attrs["macs"] == 7.0
    assert study.trials[1].user_attrs["failure"] == "constraint: macs"


def test_several_objectives_and_scores_that_are_no_numbers(tmp_path):
    file = StudyFile(Folder(str(tmp_path)), "nsga2", SPACE, MEASURED, ("error", "macs"))
    file.append([Evaluation((0, 1, 0), (2.0, 0.5, 7.0)), Evaluation((1, 1, 0), (math.nan, math.nan, 8.0))])
    file.write()
    study = read(tmp_path, "nsga2")
    assert [one.state for one in study.trials] == [TrialState.COMPLETE, TrialState.FAIL]
    assert study.trials[0].values == [0.5, 7.0]


class Pool:
    """An actor of the pool, without Ray: what it answers stays what `ray.get` would return."""

    def __init__(self, objectives):
        self.evaluate = self.submit = self
        self.objectives = objectives

    def remote(self, name, what, batch=None):
        return [Evaluation(one, (float(sum(one)),) * self.objectives) for one in what] if batch is None else None


def test_a_member_of_optuna_writes_its_study_and_goes_on_with_it(tmp_path, monkeypatch):
    monkeypatch.setattr(population.ray, "get", lambda answer: answer)
    run = Folder(str(tmp_path))
    for evaluations in (20, 40):  # the second goes on where the first ended
        members = [{"method": "optuna_tpe"}, {"method": "local_search"}]
        plan = make_plan(
            config.check(
                {"space": {"name": "nas_bench_macro"}, "members": members, "search": {"evaluations": evaluations}}
            )
        )
        pool = Pool(2 + len(plan.config.evaluation.costs))
        for member in plan.members:
            for _ in population.member_search(member, plan, run, pool, pool, ()):
                pass
        rows = run.read_table("evaluations/optuna_tpe.parquet").to_pylist()
        told = [(plan.space.print(decode(row["architecture"])), row["loss"]) for row in rows]
        assert [(one.user_attrs["architecture"], one.value) for one in read(tmp_path, "optuna_tpe").trials] == told
        assert len(told) == evaluations
    assert run.names("studies") == ["optuna_tpe.log"]
