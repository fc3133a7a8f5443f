"""How a model is executed on a device: precision, memory order, and kernels made for the shapes at hand.

In: `config.Execution`, a device. Out: contexts in which training and feature extraction run, and modules that compute
what their plain forms compute, to a stated tolerance (docs/speed.md). The method itself does not change.
"""
from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from tcn.config import Execution, InputError
from tcn.model.batch_norms import sum_in_two_passes

FORMATS = {"channels-last": torch.channels_last, "contiguous": torch.contiguous_format}


def place(model: nn.Module, execution: Execution, device: torch.device | str) -> nn.Module:
    """The model on `device`, with the memory order of weights and the form of batch norms that `execution` asks for.

    Raises InputError for bf16, TF32 or graphs where the device lacks them.
    """
    device = torch.device(device)
    check_precision(execution, device)
    # The compiler makes kernels of its own.
    if execution.batch_norm == "two-pass" and execution.compile == "none" and device.type == "cpu":
        sum_in_two_passes(model)
    if execution.compile != "none":
        # Compiled code is shared by all models of one structure in a process; hooks, such as the gates of SAKE, belong to it.
        torch._dynamo.config.skip_nnmodule_hook_guards = False
    # torch declares memory_format for tensors only
    model.to(device, memory_format=FORMATS[execution.memory_format])  # type: ignore[call-overload]
    return model


def check_precision(execution: Execution, device: torch.device) -> None:
    """InputError for bf16, TF32 or graphs where the device lacks them. No memory of a GPU is taken to find out."""
    if execution.precision == "tf32" and device.type != "cuda":
        raise InputError(f"setting 'execution.precision' is 'tf32', which only CUDA devices have; on {device.type} choose "
                         f"float32 or bf16")
    if execution.precision == "bf16" and device.type == "cuda" and not _has_bf16(device):
        raise InputError(f"setting 'execution.precision' is 'bf16', which {torch.cuda.get_device_name(device)} has not; "
                         f"choose float32")
    if execution.graphs != "none" and device.type != "cuda":
        raise InputError(f"setting 'execution.graphs' is '{execution.graphs}', which only CUDA devices have; on "
                         f"{device.type} set execution.graphs=none")


def _has_bf16(device: torch.device) -> bool:
    """Whether a GPU computes in bf16 itself: AMD's do, NVIDIA's from compute capability 8 on. torch.cuda.is_bf16_supported asks
    the current device, which need not be this one."""
    return bool(torch.version.hip) or torch.cuda.get_device_properties(device).major >= 8


def ordered(images: Tensor, execution: Execution) -> Tensor:
    """Images [B, 3, H, W] in the memory order asked for; the same tensor if it already has that order."""
    return images.contiguous(memory_format=FORMATS[execution.memory_format])


def reduced(execution: Execution, device: torch.device) -> AbstractContextManager[None]:
    """The context for the convolutions of a training step: bf16 autocast if asked for, else nothing."""
    return torch.autocast(device.type, torch.bfloat16) if execution.precision == "bf16" else nullcontext()


@contextmanager
def training_mode(execution: Execution, device: torch.device) -> Iterator[None]:
    """The context of training: precision of products on CUDA, and whether cuDNN tries its algorithms or only deterministic ones.

    Everything is restored afterwards.
    """
    tf32 = "tf32" if execution.precision == "tf32" else "ieee"
    same = execution.algorithms == "deterministic"
    with _products(tf32), _algorithms(device.type == "cuda" and not same, same):
        yield


@contextmanager
def scoring_mode() -> Iterator[None]:
    """The context in which features to be scored are computed: plain float32, not compiled, deterministic kernels."""
    with _products("ieee"), _algorithms(False, torch.are_deterministic_algorithms_enabled()), \
            torch.compiler.set_stance("force_eager"):
        torch.backends.cudnn.deterministic = True
        yield


@contextmanager
def _algorithms(tried: bool, deterministic: bool) -> Iterator[None]:
    """Whether cuDNN tries its algorithms, and whether every operation must be deterministic or raise.

    torch then also fills each new tensor with NaN, a kernel each, for code that reads what it has never written. Ours writes all
    of a tensor before it reads it (tests/model/test_execution.py lists where one is made unwritten), so the fill is left out.
    """
    cudnn = torch.backends.cudnn
    filling: Any = torch.utils.deterministic
    before = cudnn.benchmark, cudnn.deterministic, torch.are_deterministic_algorithms_enabled(), filling.fill_uninitialized_memory
    try:
        cudnn.benchmark, cudnn.deterministic = tried, deterministic or cudnn.deterministic
        filling.fill_uninitialized_memory = before[3] and not deterministic
        torch.use_deterministic_algorithms(deterministic)
        yield
    finally:
        cudnn.benchmark, cudnn.deterministic = before[:2]
        torch.use_deterministic_algorithms(before[2])
        filling.fill_uninitialized_memory = before[3]


def same_products() -> None:
    """Give cuBLAS a fixed workspace, without which the order of its sums may vary. To be called before CUDA is used.

    It costs about 24 MB of GPU memory and no measurable time. Without it, torch refuses `algorithms: deterministic`.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


@contextmanager
def _products(precision: str) -> Iterator[None]:
    # cuDNN's convolutions use TF32 unless told otherwise, so "float32" would be a wrong name.
    places: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn.conv,  # type: ignore[attr-defined]  # made at import
                               torch.backends.mkldnn.matmul)  # type: ignore[attr-defined]
    before = [place.fp32_precision for place in places]
    older, asked = torch.get_float32_matmul_precision(), "high" if precision == "tf32" else "highest"
    try:
        # The older setting must say the same: torch.compile reads it in places, and raises where the two disagree.
        if older != asked:
            torch.set_float32_matmul_precision(asked)
        for place in places[:2]:
            place.fp32_precision = precision
        yield
    finally:
        if older != asked:
            torch.set_float32_matmul_precision(older)
        for place, value in zip(places, before):
            place.fp32_precision = value


def keep_memory() -> bool:
    """Ask the C library to keep freed memory: a training step frees and takes the same blocks again, and giving them back
    to the system costs thousands of page faults a step. True where that worked (glibc)."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    trim_threshold, mmap_threshold = -1, -3
    return bool(mallopt(mmap_threshold, 2**30) and mallopt(trim_threshold, 2**31 - 1))


class CroppedConv2d(nn.Conv2d):
    """A convolution of stride 1, padded to keep the size, that leaves out taps which meet nothing but padding.

    On a picture of H pixels a tap further than H - 1 from the kernel's centre never meets it: its products are 0 and
    so is its gradient. A 5 x 5 kernel on 2 x 2 pixels is a 3 x 3 one. Same parameters, same result.
    """

    @classmethod
    def fits(cls, module: nn.Module) -> bool:
        """Whether a module is a plain convolution of the kind described."""
        return (type(module) is nn.Conv2d and module.stride == (1, 1) and module.dilation == (1, 1)
                and module.padding_mode == "zeros" and isinstance(module.padding, tuple)
                and module.kernel_size == tuple(2 * p + 1 for p in module.padding) and max(module.padding) > 0)

    def forward(self, images: Tensor) -> Tensor:
        assert not isinstance(self.padding, str)  # `fits` takes no other
        rows, columns = (max(0, pad - (side - 1)) for pad, side in zip(self.padding, images.shape[2:]))
        if not rows and not columns:
            return super().forward(images)
        weight = self.weight[:, :, rows:self.kernel_size[0] - rows, columns:self.kernel_size[1] - columns]
        return F.conv2d(images, weight, self.bias, 1, (self.padding[0] - rows, self.padding[1] - columns), 1, self.groups)


def crop_convolutions(module: nn.Module) -> nn.Module:
    """Every convolution inside that `CroppedConv2d` fits becomes one, with the same parameters under the same names."""
    for child in module.modules():
        if CroppedConv2d.fits(child):
            child.__class__ = CroppedConv2d
    return module


def fold_batch_norms(module: nn.Module) -> nn.Module:
    """Multiply every batch norm of a network in evaluation mode into the convolution defined right before it, in place.

    What the batch norm's class applies after it (timm's activation) stays. Raises InputError where a batch norm does
    not follow a convolution of its size; such a network has to be run as it is.
    """
    last: nn.Conv2d | None = None
    for name, child in list(module.named_modules()):
        if isinstance(child, nn.Conv2d):
            last = child
        elif isinstance(child, nn.BatchNorm2d):
            if last is None or last.out_channels != child.num_features:
                raise InputError(f"batch norm '{name}' does not follow a convolution of its size; set execution.teacher=as-is")
            was = last.weight
            fused = fuse_conv_bn_eval(last.eval(), child.eval())
            last.weight = nn.Parameter(torch.empty_like(was).copy_(fused.weight), requires_grad=False)
            assert fused.bias is not None  # a batch norm has a shift
            last.bias = nn.Parameter(fused.bias.detach(), requires_grad=False)
            parent, _, attribute = name.rpartition(".")
            setattr(module.get_submodule(parent), attribute, getattr(child, "act", nn.Identity()))
            last = None
    return module
