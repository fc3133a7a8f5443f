"""What must not depend on the device: scores, losses and a training step, CUDA against the CPU (run with -m gpu)."""
from __future__ import annotations

import numpy as np
import pytest
import torch
from test_training import CPU, config, ingredients, setup

from tcn import metrics
from tcn.losses import semantic_metric, soft_sharing
from tcn.method import TCN

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
CUDA = torch.device("cuda")


@pytest.mark.parametrize("metric", ("euclidean", "hamming"))
@pytest.mark.parametrize("ties", metrics.TIES)
def test_scores_are_those_of_the_cpu(metric, ties):
    rng = np.random.default_rng(0)
    sides = [rng.normal(size=(n, 16)) for n in (40, 300)]
    sides = [side > 0 for side in sides] if metric == "hamming" else sides
    labels = [rng.integers(0, 5, n) for n in (40, 300)]
    here, there = (metrics.evaluate(*sides, *labels, metric=metric, ties=ties, ks=(10, 100), device=device)
                   for device in ("cpu", "cuda"))
    for protocol, values in here.items():
        assert there[protocol] == pytest.approx(values, rel=1e-9)


def test_losses_are_those_of_the_cpu():
    g = torch.Generator().manual_seed(0)
    features, words, alpha = (torch.randn(*shape, generator=g) for shape in ((24, 8), (24, 8), (24,)))
    labels, head = torch.arange(24) % 6, torch.nn.Linear(8, 6)
    here = semantic_metric(features, words, labels, alpha.sigmoid(), head)
    there = semantic_metric(*(t.to(CUDA) for t in (features, words, labels, alpha.sigmoid())), head.to(CUDA))
    torch.testing.assert_close(there.cpu(), here, rtol=1e-5, atol=1e-6)
    encoders = [torch.nn.Conv2d(16, 32, 3) for _ in range(2)]
    expected = soft_sharing(*encoders).item()
    assert soft_sharing(*(e.to(CUDA) for e in encoders)).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("parts", (1, 2))
def test_a_training_step_is_that_of_the_cpu(parts):
    settings = config(**{"network.batch_norm_split": parts})
    totals = []
    for device in (CPU, CUDA):
        _, source, _ = setup(settings)
        model = TCN.build(settings, ingredients()).to(device)
        losses = TCN.losses(model, next(source.epoch(0, 1, device)), settings, torch.Generator().manual_seed(0))
        losses.total().backward()
        totals.append(losses.total().item())
    assert totals[1] == pytest.approx(totals[0], rel=1e-3)
