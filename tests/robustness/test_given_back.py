"""What a computation borrows (modes, random streams, kernels' settings, signals) is given back, on an exception too."""
from __future__ import annotations

import re
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from baselines import domain_adversarial, sake
from benchmarks import interrupts
from benchmarks.extension import digits
from tcn.config import Execution, Modality
from tcn.model import execution
from tcn.model.embedding import Embedding
from tcn.model.execution import scoring_mode, training_mode
from tcn.scoring.features import evaluating, extract
from tcn.seeding import borrowed
from tcn.train import loop

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")


class Pictures:
    """Six pictures of 4 x 4 pixels, as `extract` reads them."""

    labels = np.array([0, 1, 1, 0, 1, 0])

    def __len__(self) -> int:
        return 6

    def gather(self, own: np.ndarray, device: torch.device) -> torch.Tensor:
        return torch.zeros(len(own), 4, 4, 3, dtype=torch.uint8)


class Breaking(nn.Module):
    """Breaks at its second batch, or while it classifies; one part stands in evaluation mode whatever the rest does."""

    def __init__(self, breaks: str) -> None:
        super().__init__()
        self.moving, self.frozen = nn.BatchNorm2d(3), nn.Sequential(nn.BatchNorm2d(3).eval(), nn.Dropout())
        self.frozen.training = False
        self.breaks, self.seen = breaks, []

    def encode(self, images: torch.Tensor, modality: Modality) -> torch.Tensor:
        self.seen.append([module.training for module in self.modules()])
        if self.breaks == "encode" and len(self.seen) == 2:
            raise RuntimeError("planted")
        return images.mean((2, 3))

    encode_backbone = forward = encode

    def classify(self, features: torch.Tensor, modality: Modality) -> torch.Tensor:
        self.seen.append([module.training for module in self.modules()])
        raise RuntimeError("planted")


MODES = [True, True, False, False, True]
"""Of a `Breaking` network and its parts, in order: the dropout inside the frozen part was left in training."""


def kernels() -> tuple:
    cudnn, cuda = torch.backends.cudnn, torch.backends.cuda
    return (cudnn.benchmark, cudnn.deterministic, torch.are_deterministic_algorithms_enabled(), cudnn.conv.fp32_precision,
            cuda.matmul.fp32_precision, torch.is_grad_enabled())


@pytest.mark.parametrize("breaks, run", [
    ("encode", lambda model: extract(model, Pictures(), Modality.PHOTO, 4, CPU, batch=4)),
    ("encode", lambda model: extract(model, Pictures(), Modality.SKETCH, 4, CPU, "backbone", batch=2)),
    ("classify", lambda model: loop.class_accuracy(model, Pictures(), 4, CPU)),
    ("classify", lambda model: digits.accuracy(model, digits.Domain(np.zeros((6, 3, 4, 4), np.uint8), Pictures.labels),
                                               "source", CPU))])
def test_every_module_goes_back_to_its_own_mode_after_an_exception(breaks, run):
    model, before = Breaking(breaks), kernels()
    assert [module.training for module in model.modules()] == MODES
    with pytest.raises(RuntimeError, match="planted"):
        run(model)
    assert [module.training for module in model.modules()] == MODES and kernels() == before
    assert model.seen and not any(map(any, model.seen))  # it did stand in evaluation mode


def test_modes_go_back_where_nothing_breaks_and_an_evaluating_model_stays_so():
    model = Breaking("")
    extract(model, Pictures(), Modality.PHOTO, 4, CPU)
    assert [module.training for module in model.modules()] == MODES
    judged = domain_adversarial.DigitModel(domain_adversarial.DigitSettings(image_size=8)).eval()
    digits.accuracy(judged, digits.Domain(np.zeros((2, 3, 8, 8), np.uint8), np.array([0, 1])), "target", CPU)
    assert not any(module.training for module in judged.modules())
    with evaluating(model):
        assert not any(module.training for module in model.modules())


def test_looking_at_an_encoder_s_channels_leaves_no_hook_and_no_mode_behind():
    model = Breaking("encode")
    model.forward = lambda images: model.moving(images[:, :2])  # two channels, where three are expected
    with pytest.raises(RuntimeError):
        sake._channels(model, {"stem": model.moving}, 8)
    assert [module.training for module in model.modules()] == MODES and not model.moving._forward_hooks


def test_a_borrowed_stream_is_torch_s_own_and_goes_back_with_other_devices_untouched(monkeypatch):
    torch.manual_seed(12)
    state, expected = torch.get_rng_state(), torch.manual_seed(5) and torch.rand(3)
    torch.manual_seed(12)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("CUDA's streams were started anew"))
    with pytest.raises(RuntimeError, match="planted"), borrowed(5):
        assert torch.equal(torch.rand(3), expected)
        raise RuntimeError("planted")
    assert torch.equal(torch.get_rng_state(), state)
    Embedding(6, 4, 3, "shared", 0.0, None, 7, 1)
    assert torch.equal(torch.get_rng_state(), state)
    for method in domain_adversarial.METHODS:
        domain_adversarial.DigitModel(domain_adversarial.DigitSettings(method, image_size=8))
        assert torch.equal(torch.get_rng_state(), state), method


@pytest.mark.parametrize("mode", [lambda: training_mode(Execution(precision="tf32", algorithms="deterministic"), CPU),
                                  lambda: training_mode(Execution(), CPU), scoring_mode])
def test_kernels_go_back_after_an_exception_inside_and_at_the_door(mode, monkeypatch):
    before = kernels()
    with pytest.raises(RuntimeError, match="planted"), mode():
        raise RuntimeError("planted")
    assert kernels() == before
    # As well where the last of several settings is refused.
    real, calls = torch.use_deterministic_algorithms, []

    def refuse(value: bool) -> None:
        calls.append(value)
        if len(calls) == 1:
            raise RuntimeError("planted")
        real(value)

    monkeypatch.setattr(execution.torch, "use_deterministic_algorithms", refuse)
    with pytest.raises(RuntimeError, match="planted"), mode():
        pytest.fail("not reached")
    assert kernels() == before and len(calls) == 2


def test_signals_go_back_where_the_second_can_t_be_caught(monkeypatch):
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)]
    real = signal.signal

    def refuse(number: int, handler: object) -> object:
        if number == signal.SIGHUP:
            raise OSError("planted")
        return real(number, handler)

    monkeypatch.setattr(interrupts, "signal", SimpleNamespace(**{**vars(signal), "signal": refuse}))
    with pytest.raises(OSError, match="planted"), interrupts.caught(signal.SIGTERM, signal.SIGHUP):
        pytest.fail("not reached")
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)] == before


def test_modes_and_torch_s_global_stream_are_changed_in_the_named_places_only():
    allowed = {"tcn/scoring/features.py": {"model.eval()"},  # evaluating
               "tcn/model/execution.py": {"fused = fuse_conv_bn_eval(last.eval(), child.eval())"},  # in place, by its contract
               # a teacher, which stays so
               "tcn/model/backbones.py": {"plain, other = backbone.eval()(noise), folded.eval()(noise)"},
               # inside _streams_kept
               "benchmarks/checking.py": {"torch.manual_seed(noise)", "np.random.seed(noise)", "random.seed(noise)",
                                          'torch.manual_seed(stream_seed(self.config.seed, "dropout", step))'},
               "tcn/train/loop.py": {'torch.manual_seed(stream_seed(config.seed, "dropout", epoch))'}}  # inside fork_rng
    found: dict[str, set[str]] = {}
    for folder in ("tcn", "baselines", "benchmarks"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if path.stem in ("mutants", "mutants_by_hand") or path.parent.name == "speed":  # processes of their own
                continue
            for line in path.read_text(encoding="utf-8").splitlines():
                code = line.split("#")[0].strip()
                if re.search(r"\.eval\(\)|torch\.manual_seed\(|random\.seed\(|set_rng_state\(|set_grad_enabled\(|chdir\(", code):
                    found.setdefault(path.relative_to(ROOT).as_posix(), set()).add(code)
    assert found == allowed
