"""Ordered dropout: each image its own width; masked and sliced passes are compared in test_elastic.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from raynas.errors import UserError
from raynas.replica_group import ReplicaGroup
from raynas.training_rules.ordered_dropout import OrderedDropout
from tests.helpers import make_trainer, small_config


def _step(trainer: object, rule: OrderedDropout) -> object:
    return rule.step(
        trainer.supernet,  # type: ignore[attr-defined]
        trainer._batch("train", trainer.train),  # type: ignore[attr-defined]
        None,
        loss=trainer._loss,  # type: ignore[attr-defined]
        rng=np.random.default_rng(0),
        number=0,
        group=ReplicaGroup(),
    )


def test_a_space_without_elastic_layers_is_refused_in_one_line() -> None:
    with pytest.raises(UserError, match=r"nas_bench_201 has none.*choose a space such as nats_size") as mistake:
        make_trainer("ordered_dropout", small_config()).train_step()
    assert "\n" not in str(mistake.value)


def test_every_image_has_a_path_and_its_paths_have_all_widths() -> None:
    trainer = make_trainer("ordered_dropout")
    paths = _step(trainer, trainer.rule).paths  # type: ignore[arg-type,attr-defined]
    assert 25 <= len(paths) <= 32  # 32 images, 32,768 paths
    for block in range(5):
        assert len({path[block] for path in paths}) > 4


def test_one_width_for_all_images_gives_the_gradients_of_the_sliced_path() -> None:
    trainer = make_trainer("ordered_dropout")
    space = trainer.rule.space  # type: ignore[attr-defined]
    path = (2, 5, 5, 0, 7)

    class Same(np.random.Generator):
        blocks = iter(path)

        def integers(self, *_: object, size: int, **__: object) -> np.ndarray:  # type: ignore[override]
            return np.full(size, next(self.blocks))

    batch = trainer._batch("train", trainer.train)
    keywords = {"loss": trainer._loss, "rng": Same(np.random.PCG64(0)), "number": 0, "group": ReplicaGroup()}
    network = trainer.supernet.double()
    images_NCHW = batch.images_NCHW.double()
    result = OrderedDropout(space, seed=0).step(network, type(batch)(images_NCHW, batch.labels_N), None, **keywords)
    assert result.paths == (path,)
    masked = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    network.zero_grad(set_to_none=True)
    trainer._loss(network(images_NCHW, path), batch.labels_N).backward()
    for name, parameter in network.named_parameters():
        if parameter.grad is None:
            assert not masked[name].count_nonzero(), name
        else:
            torch.testing.assert_close(masked[name], parameter.grad, rtol=1e-4, atol=1e-6, msg=name)
