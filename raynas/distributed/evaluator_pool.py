"""The evaluator pool: actors that hold published supernets, or proxies, and score architectures for whoever asks."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import defaultdict, deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias, TypeVar

import ray
import torch
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from raynas import device as devices
from raynas.architecture import Architecture
from raynas.checkpoint import load_weights, weights_file
from raynas.common_scale import common_scale
from raynas.config import Config
from raynas.data import Dataset, Split, split
from raynas.distributed.cluster import DEATHS, bundle, cause, total, words
from raynas.distributed.splits import Joined, read_joined
from raynas.errors import UserError, breaks_process
from raynas.evaluation import ALONE, PROXY, SCORES, SHORT, Evaluation, in_words
from raynas.partition import reference_sample
from raynas.plan import build_supernet, load_space
from raynas.proxy_evaluator import ProxyEvaluator
from raynas.scoring_images import ScoringImages, draw_images
from raynas.short_training import ShortTrainingEvaluator
from raynas.storage import Folder
from raynas.supernet_evaluator import Costs, SupernetEvaluator

CALL_S = 1.0
"""A call to a worker is about so long: enough to hide the call, short enough to keep every worker busy."""
MOST = 64
"""Architectures a call has at most."""
PATIENCE_S = 20.0
"""So long places for all workers are waited for before fewer are asked for."""
MOST_DEATHS = 3
"""A candidate that was alone at the death of so many workers, known to live before, is the reason, and has failed."""
MOST_RANKERS = 100
"""A worker keeps so many: more than most populations have supernets, which their members ask for in turn, as each that
was dropped is built anew."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Asked:
    """Which ranker (a supernet's id, or one of ALONE), and whether for a candidate's evaluation or for scores alone.

    Scores alone are asked of rankers that need no supernet, and for reference architectures.
    """

    ranker: str
    candidates: bool = True


Ranker: TypeAlias = SupernetEvaluator | ProxyEvaluator | ShortTrainingEvaluator


class EvaluatorWorker:
    """Scores architectures; keeps the rankers that it was asked for. A plain class, made remote by the pool.

    data: the pickled reference of the dataset's arrays.
    """

    def __init__(self, config: Config, data: bytes) -> None:
        self.config = config
        self.data = data
        self.evaluators: dict[str, Ranker] = {}

    def ready(self) -> None:
        """Answers once there is a process; before that the pool gives it nothing to score."""

    def evaluate(
        self,
        supernet: str,
        weights: Sequence[ray.ObjectRef],
        architectures: Sequence[Architecture],
        costs: Mapping[Architecture, tuple[float, ...]],
    ) -> list[Evaluation]:
        """Score canonical architectures with a supernet, whose weights are fetched on first use.

        costs: those known already; a cost that is measured, as latency, then is the same for every supernet.
        """
        evaluator = self._evaluator(supernet, weights)
        assert isinstance(evaluator, SupernetEvaluator)  # a proxy measures, and knows no costs
        evaluator.costs.known.update(costs)
        return list(evaluator.evaluate(architectures))

    def measure(
        self, ranker: str, weights: Sequence[ray.ObjectRef], architectures: Sequence[Architecture]
    ) -> list[Evaluation]:
        """Loss and error, or a proxy's score: limits do not matter, nor do costs."""
        evaluator = self._evaluator(ranker, weights)
        return [evaluator.measure(one) for one in architectures]

    def _evaluator(self, ranker: str, weights: Sequence[ray.ObjectRef]) -> Ranker:
        """The ranker, and the one asked for least recently makes room for it."""
        if ranker in self.evaluators:
            found = self.evaluators.pop(ranker)
        else:
            if len(self.evaluators) == MOST_RANKERS:
                del self.evaluators[next(iter(self.evaluators))]
            try:
                found = self._load(ranker, weights)
            except Exception as fault:
                if breaks_process(fault):  # no candidate's doing, and no other worker's luck
                    raise UserError(
                        f"an evaluator's device does not work: {in_words(fault)}; see its driver."
                    ) from fault
                raise
        self.evaluators[ranker] = found
        return found

    @cached_property
    def split(self) -> Split:
        """The images, parted once for all rankers."""
        dataset = Dataset.from_numpy(ray.get(ray.cloudpickle.loads(self.data)))
        return split(dataset, self.config.data.validation_fraction, self.config.seed)

    @cached_property
    def device(self) -> torch.device:
        """What was granted."""
        return devices.prepare(self.config.evaluation.cpus_per_worker, self.config.evaluation.gpus_per_worker)

    @cached_property
    def images(self) -> ScoringImages:
        """What supernets are scored on, once for all of them: of many the copies would fill a GPU."""
        return draw_images(self.split, self.config, self.device)

    def _load(self, ranker: str, weights: Sequence[ray.ObjectRef]) -> Ranker:
        device, config, dataset = self.device, self.config, self.split.dataset
        supernet = build_supernet(config, dataset, seed=config.seed, stand_alone=ranker.startswith(ALONE))
        space = load_space(config.space)
        common: dict[str, Any] = {"supernet": supernet, "device": device}
        own: dict[str, Any] = {
            "canonicalise": space.canonicalise,
            "split": self.split,
            "data": config.data,
            "seed": config.seed,
        }
        if ranker.startswith(SHORT):
            epochs = float(ranker.removeprefix(SHORT))
            return ShortTrainingEvaluator(epochs=epochs, retraining=config.retraining, **own, **common)
        if ranker.startswith(PROXY):
            name, images = ranker.removeprefix(PROXY), config.selector.proxy_images
            return ProxyEvaluator(proxy=name, images=images, **own, **common)
        # copied: the arrays are the object store's own memory
        supernet.load_state_dict({name: torch.tensor(value) for name, value in ray.get(weights[0]).items()})
        costs = Costs(config.evaluation.costs, config.constraints, supernet, dataset.image_shape_CHW)
        return SupernetEvaluator(space=space, images=self.images, settings=config.evaluation, costs=costs, **common)


class EvaluatorPool:
    """Hands candidates to workers, remembers every score by canonical form, and outlives the death of workers.

    An asynchronous actor: many members wait in `evaluate` at once. Nothing in it is lost with it, since a score can
    be computed again and comes out the same.

    data: the pickled reference of the dataset's arrays. An actor that restarts is made of its arguments again, and a
        reference among them might be gone by then; a pickled one keeps the object for as long as the driver lives.
    places: the driver's, a bundle for each worker. They stay reserved when a worker or the pool dies: a member that
        waits for its turn could else take the CPU, and then wait for ever for an evaluator that has none.
    """

    def __init__(self, config: Config, data: bytes, run: Folder, places: PlacementGroup) -> None:
        self.config = config
        self.data = data
        self.run = run
        self.places = places
        self.space = load_space(config.space)
        self.weights: dict[str, asyncio.Future[ray.ObjectRef]] = {}
        self.joined: dict[str, asyncio.Future[Joined | None]] = {}
        self.scores: dict[tuple[Asked, Architecture], asyncio.Future[Evaluation]] = {}
        self.costs: dict[Architecture, tuple[float, ...]] = {}
        self.waiting: defaultdict[Asked, deque[Architecture]] = defaultdict(deque)
        self.pace: dict[str, float] = {}
        """Seconds that each ranker took for an architecture the last time."""
        self.scored = 0
        self.tasks: set[asyncio.Task[None]] = set()
        self.idle: asyncio.Queue[Any] = asyncio.Queue()
        for _ in range(places.bundle_count):
            self._begin(self._admit(self._hire()))

    async def evaluate(self, ranker: str, architectures: Sequence[Architecture]) -> list[Evaluation]:
        """One evaluation per architecture, in the order asked; each distinct network is scored once for all askers."""
        asked = Asked(ranker, candidates=not ranker.startswith(ALONE))
        found = await self._ask(asked, [self.space.canonicalise(one) for one in architectures])
        return [
            Evaluation(architecture, evaluation.objectives, evaluation.failure)
            for architecture, evaluation in zip(architectures, found, strict=True)
        ]

    async def _ask(self, asked: Asked, canonical: Sequence[Architecture]) -> list[Evaluation]:
        joined = await self._joined(asked.ranker)
        missing = [one for one in dict.fromkeys(canonical) if (asked, one) not in self.scores]
        for one in missing:
            self.scores[asked, one] = asyncio.get_running_loop().create_future()
        if joined is None:
            self.waiting[asked].extend(missing)
            for _ in range(min(len(missing), self.places.bundle_count)):
                self._begin(self._score(asked))
        else:
            for index, partition in enumerate(joined.partitions):
                if own := [one for one in missing if one in partition]:
                    self._begin(self._score_partition(asked, joined, index, own))
        # shielded: an asker that dies takes nothing from the others who wait for the same network
        return await asyncio.gather(*(asyncio.shield(self.scores[asked, one]) for one in canonical))

    async def remember(self, supernet: str, evaluations: Iterable[Evaluation]) -> None:
        """Take up scores of an earlier attempt at this run, so that they are not computed again."""
        for evaluation in evaluations:
            self._settle(Asked(supernet), self.space.canonicalise(evaluation.architecture), evaluation)

    async def counts(self) -> dict[str, int]:
        """How many networks were scored in this attempt, and how many scores are known."""
        return {"scored": self.scored, "known": len(self.scores)}

    def _hire(self) -> Any:
        """A new worker, in a place that is free or becomes free when the one that held it is gone."""
        settings = self.config.evaluation
        actor = ray.remote(EvaluatorWorker).options(
            num_cpus=settings.cpus_per_worker,
            num_gpus=settings.gpus_per_worker,
            scheduling_strategy=PlacementGroupSchedulingStrategy(self.places),
        )
        return actor.remote(self.config, self.data)

    async def _admit(self, worker: Any) -> None:
        """Let a hired worker have work once it answers: it waits for ever where its place is on a node that is gone.

        Another is hired for one that dies before; where none lives, the last joins, and the next call tells.
        """
        for _ in range(MOST_DEATHS):
            try:
                await worker.ready.remote()
                break
            except ray.exceptions.RayError:
                ray.kill(worker)
                worker = self._hire()
        self.idle.put_nowait(worker)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Start work that belongs to nobody: it goes on when the one who asked first is gone."""
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _score_partition(
        self, asked: Asked, joined: Joined, index: int, architectures: Sequence[Architecture]
    ) -> None:
        """Let a partition's supernet score, and bring its scores to the scale of all partitions."""
        part = joined.parts[index]
        sample = reference_sample(self.space, joined.partitions[index], joined.settings, self.config.seed)
        try:
            found, own, reference = await asyncio.gather(
                self._ask(Asked(part), architectures),
                self._ask(Asked(part, candidates=False), sample),
                self._ask(Asked(joined.warm_up, candidates=False), sample),
            )
        except Exception as fault:
            self._give_up(asked, architectures, fault)
            return
        scale = common_scale(joined.settings.comparable, own, reference)
        for one, evaluation in zip(architectures, found, strict=True):
            self._settle(asked, one, scale(evaluation))

    def _share(self, asked: Asked) -> list[Architecture]:
        """A worker's share of what waits, for about `CALL_S`; one, if it is not known how long that takes."""
        waiting = self.waiting[asked]
        most = CALL_S / max(self.pace.get(asked.ranker, CALL_S), CALL_S / MOST)
        size = math.ceil(min(most, len(waiting) / self.places.bundle_count))
        return [waiting.popleft() for _ in range(size)]

    async def _score(self, asked: Asked, chosen: Sequence[Architecture] = (), deaths: int = 0) -> None:
        """Let the next worker that is idle score these, or else its share of what waits; and so on, as long as any."""
        ranker = asked.ranker
        try:
            weights = await self._weights(ranker)
        except Exception as fault:
            self._give_up(asked, chosen or self.waiting.pop(asked, ()), fault)
            return
        worker = await (self._living() if chosen else self.idle.get())
        architectures = chosen or self._share(asked)
        if not architectures:
            self.idle.put_nowait(worker)
            return
        began = time.monotonic()
        try:
            if asked.candidates:
                known = {one: self.costs[one] for one in architectures if one in self.costs}
                evaluations = await worker.evaluate.remote(ranker, weights, architectures, known)
            else:
                evaluations = await worker.measure.remote(ranker, weights, architectures)
        except Exception as fault:
            if not (isinstance(fault, DEATHS) or breaks_process(cause(fault))):
                self.idle.put_nowait(worker)
                self._give_up(asked, architectures, fault)
                return
            death = str(cause(fault)).partition("\n")[0]
            self._replace(worker)
        else:
            self.idle.put_nowait(worker)
            self.scored += len(evaluations)
            self.pace[ranker] = (time.monotonic() - began) / len(architectures)
            for one, evaluation in zip(architectures, evaluations, strict=True):
                self._settle(asked, one, evaluation)
            return
        finally:
            if self.waiting[asked]:
                self._begin(self._score(asked))
        if not chosen:  # it may have died before it was asked, or one of them may be the reason: find out which
            for one in architectures:
                self._begin(self._score(asked, [one]))
        elif deaths + 1 < MOST_DEATHS:
            self._begin(self._score(asked, architectures, deaths + 1))
        else:
            reason = f"killed its evaluator {MOST_DEATHS} times: {death}"
            self._settle(asked, architectures[0], Evaluation(architectures[0], (), reason))

    async def _living(self) -> Any:
        """The next worker that answers: a candidate that is asked again is not to be blamed for older deaths.

        After as many dead ones as there are places, whichever is next: where none lives, the call tells.
        """
        for _ in range(self.places.bundle_count):
            worker = await self.idle.get()
            try:
                await worker.ready.remote()
            except ray.exceptions.RayError:
                self._replace(worker)
            else:
                return worker
        return await self.idle.get()

    def _replace(self, worker: Any) -> None:
        """Hire another for a worker that died."""
        ray.kill(worker)  # one that only could not be reached would keep its place
        self._begin(self._admit(self._hire()))

    def _settle(self, asked: Asked, architecture: Architecture, evaluation: Evaluation) -> None:
        future = self.scores.setdefault((asked, architecture), asyncio.get_running_loop().create_future())
        if not future.done():
            future.set_result(evaluation)
        if asked.candidates and evaluation.objectives:
            self.costs.setdefault(architecture, evaluation.objectives[len(SCORES) :])

    def _give_up(self, asked: Asked, architectures: Sequence[Architecture], fault: Exception) -> None:
        """Tell the askers; the next to ask tries again."""
        for one in architectures:
            self.scores.pop((asked, one)).set_exception(fault)

    async def _joined(self, supernet: str) -> Joined | None:
        return await _once(self.joined, supernet, lambda: read_joined(self.run, supernet))

    async def _weights(self, supernet: str) -> list[ray.ObjectRef]:
        """The weights (of `id@step` those of that step) as one object of numpy arrays, of which a node holds one.

        None for a ranker that needs no supernet: its weights the worker draws.
        """
        if supernet.startswith(ALONE):
            return []

        def put() -> ray.ObjectRef:
            identity, _, step = supernet.partition("@")
            loaded = load_weights(self.run / f"supernets/{identity}", weights_file(int(step) if step else None))
            return ray.put({name: value.numpy() for name, value in loaded.items()})

        return [await _once(self.weights, supernet, put)]


async def _once(known: dict[str, asyncio.Future[T]], key: str, read: Callable[[], T]) -> T:
    """What is read once for all who want it, in a thread, so that nobody else waits; after a fault it is read anew."""
    if key not in known:
        known[key] = asyncio.ensure_future(asyncio.to_thread(read))
    try:
        return await asyncio.shield(known[key])
    except Exception:
        known.pop(key, None)
        raise


@contextlib.contextmanager
def evaluator_pool(
    config: Config, data: ray.ObjectRef, run: Folder, workers: int, note: Callable[[str], None]
) -> Iterator[Any]:
    """The pool's actor, once its workers have their places; they are given back at the end.

    note: told if there is no room for them yet.

    Ctrl-C gives nothing back: all ends with the driver, and members that still ask need not hear of a killed pool.
    """
    places = _reserve(config, workers, note)
    actor = ray.remote(EvaluatorPool).options(num_cpus=0, max_restarts=-1, max_task_retries=-1, max_concurrency=1000)
    pool = actor.remote(config, ray.cloudpickle.dumps(data), run, places)

    def close() -> None:
        ray.kill(pool)
        remove_placement_group(places)

    try:
        yield pool
    except Exception:
        close()
        raise
    close()


def _reserve(config: Config, workers: int, note: Callable[[str], None]) -> PlacementGroup:
    """Places for so many workers; for fewer while others hold part of the cluster, unless the number is configured."""
    settings = config.evaluation
    while True:
        bundles = [bundle(settings.cpus_per_worker, settings.gpus_per_worker)] * workers
        places = placement_group(bundles, strategy="PACK")
        if places.wait(PATIENCE_S):
            return places
        if settings.workers is not None or workers == 1:
            note(f"evaluators wait for {words(total(bundles))}: there is no room for them in the cluster now.")
            ray.get(places.ready())
            return places
        remove_placement_group(places)
        workers //= 2
