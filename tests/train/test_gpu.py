"""What must not depend on the device: scores, losses and a training step, CUDA against the CPU (run with -m gpu)."""
from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from support.small_models import CPU, config, ingredients, setup

import baselines
from tcn import metrics
from tcn.config import REFERENCE, Execution
from tcn.data.augment import resize
from tcn.data.pairs import PairBatch
from tcn.model.execution import place, same_products, training_mode
from tcn.train.loop import adam, fit, train_step
from tcn.train.losses import semantic_metric, sharing_norms, soft_sharing
from tcn.train.method import TCN

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
CUDA = torch.device("cuda")
same_products()  # before anything here uses CUDA


@pytest.mark.parametrize("old, new", [(256, 224), (73, 64), (31, 64)])
def test_the_rounded_resize_is_the_cpu_s_bit_for_bit(old, new):
    pictures = torch.randint(0, 256, (3, 3, old, old), generator=torch.Generator().manual_seed(old)).float()
    assert torch.equal(resize(pictures.to(CUDA), new, "rounded").cpu(), resize(pictures, new, "rounded"))


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


def test_precision_over_recall_is_that_of_the_cpu():
    rng = np.random.default_rng(0)
    sides, labels = [rng.normal(size=(n, 16)) for n in (40, 300)], [rng.integers(0, 5, n) for n in (40, 300)]
    here, there = (metrics.precision_recall(*sides, *labels, device=device, block=7) for device in ("cpu", "cuda"))
    assert there == pytest.approx(here, rel=1e-12)


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


def test_fused_sharing_is_the_loop_on_the_device():
    pairs = [tuple(torch.randn(*shape, device=CUDA, requires_grad=True) for _ in range(2)) for shape in ((512, 512, 3, 3), (7,))]
    pairs.append((pairs[0][0], pairs[0][0].detach().clone().requires_grad_()))
    gradients = []
    for form in ("fused", "loop"):
        norms = sharing_norms(pairs, form)
        gradients.append(torch.autograd.grad(norms.sum(), [tensor for pair in pairs for tensor in pair]))
        assert norms[2].item() == 0
    for a, b in zip(*gradients):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("change, tolerance", [({}, 1e-4), ({"precision": "tf32"}, 1e-2), ({"precision": "bf16"}, 5e-2),
                                               pytest.param({"compile": "encoders"}, 1e-4, id="compile")])
def test_each_fast_form_gives_the_reference_s_losses(change, tolerance):
    found = []
    for execution in (REFERENCE, dataclasses.replace(Execution(), **change)):
        settings = config(**{f"execution.{key}": value for key, value in dataclasses.asdict(execution).items()})
        _, source, _ = setup(settings)
        model = place(TCN.build(settings, ingredients()), execution, CUDA)
        with training_mode(execution, CUDA):
            batch = next(iter(source.epoch(0, 1, CUDA)))
            terms = train_step(TCN, model, adam(model, settings), batch, settings, torch.Generator().manual_seed(0))
        found.append({name: value.item() for name, value in terms.items()})
    assert found[1] == pytest.approx(found[0], rel=tolerance)


def test_neither_batches_nor_steps_wait_for_the_device():
    """torch raises where the host would stand still until the device is done; the first step may (it sets up kernels)."""
    settings = config()
    _, source, _ = setup(settings)
    model = place(TCN.build(settings, ingredients()), settings.execution, CUDA)
    optimizer = adam(model, settings)
    try:
        for number, batch in enumerate(source.epoch(0, 1, CUDA)):
            train_step(TCN, model, optimizer, batch, settings, torch.Generator().manual_seed(number))
            torch.cuda.set_sync_debug_mode("error")
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("variant", ("tcn", "hws", "hws-separate", "hard-conv", "frozen-conv", "nws"))
def test_recorded_steps_are_the_launched_ones_also_on_a_batch_of_another_size(variant):
    """Losses of some steps, with a smaller batch among them, and all parameters and statistics after them."""
    found = []
    for graphs in ("none", "encoders"):
        delta = {**baselines.find(variant).delta, "execution.graphs": graphs, "execution.algorithms": "deterministic"}
        settings = config(**delta)
        _, source, _ = setup(settings)
        method = baselines.find(variant).method
        model = place(method.build(settings, ingredients()), settings.execution, CUDA)
        model.train()
        optimizer = adam(model, settings)
        with training_mode(settings.execution, CUDA):
            batches = list(source.epoch(0, 1, CUDA))
            if graphs == "encoders":
                model.record(torch.zeros_like(batches[0].sketches))
            batches.insert(1, PairBatch(*(getattr(batches[1], name)[:5] for name in ("sketches", "photos", "labels"))))
            terms = [train_step(method, model, optimizer, batch, settings, torch.Generator().manual_seed(number))["total"].item()
                     for number, batch in enumerate(batches[:6])]
        found.append((terms, {name: tensor.cpu() for name, tensor in model.state_dict().items()}))
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-4)
    for name, tensor in found[0][1].items():
        torch.testing.assert_close(found[1][1][name], tensor, rtol=1e-3, atol=1e-4, msg=lambda text, name=name: f"{name}: {text}")


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


def test_deterministic_algorithms_give_the_same_bits_straight_twice_and_resumed(tmp_path):
    settings = config(**{"execution.algorithms": "deterministic", "network.dropout": 0.5,
                         "network.embedding_norm": "per_modality"})

    def trained(folder, stop_after=None):
        folder.mkdir(exist_ok=True)
        _, source, validation = setup(settings)
        model = place(TCN.build(settings, ingredients()), settings.execution, CUDA)

        def stop(history):
            if history.epochs[-1]["epoch"] == stop_after:
                raise InterruptedError

        try:
            fit(TCN, model, source, validation, settings, folder, CUDA, progress=False, on_epoch=stop)
        except InterruptedError:
            return None
        return {name: tensor.cpu() for name, tensor in model.state_dict().items()}

    first, second = trained(tmp_path / "a"), trained(tmp_path / "b")
    assert trained(tmp_path / "c", stop_after=1) is None
    resumed = trained(tmp_path / "c")
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]) and torch.equal(tensor, resumed[name]), name
    # Kept without a device's name, so that a run can be gone on with on another one.
    assert not [path for path in tmp_path.rglob("*.pt") if b"cuda" in path.read_bytes()] and list(tmp_path.rglob("*.pt"))
    assert not torch.are_deterministic_algorithms_enabled()
