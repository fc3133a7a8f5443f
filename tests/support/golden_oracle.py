"""A whole training run written out plainly in float64: pairs, augmentation, encoders, embedding, losses, Adam, schedule, choice.

For the tiny network below, from the method's facts. Of the project it takes the formulas of the losses in their plain form
(benchmarks/speed/reference_training.py, written without tcn's own) and the settings; everything else is by hand, the
derivation of random streams included. Convolutions and gradients are torch's.
"""
from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.speed.reference_training import batch_hard, distilled, mixed, norms_one_by_one
from tcn.config import PARTS, Config
from tcn.model.backbones import Backbone, Classifier

WIDTHS, KERNELS, STRIDES = (5, 6, 6, 8), (3, 3, 3, 5), (2, 2, 2, 1)
FEATURES = 7
State = dict[str, Tensor]


# --------------------------------------------------------------------------------------------------- the tiny network
class Stage(nn.Module):
    """Two ways, as in a ResNet's stage: a convolution, and a shortcut of its own, each with a batch norm.

    For float64 only: in float32 and channels-last order, oneDNN's gradient of a strided 1 x 1 convolution of fewer than 8
    channels (16 with AVX-512) writes beyond its memory (uxlfoundation/oneDNN#6035). No published backbone has one.
    """

    def __init__(self, width: int, out: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.main = nn.Sequential(nn.Conv2d(width, out, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(out))
        self.shortcut = nn.Sequential(nn.Conv2d(width, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.main(x) + self.shortcut(x))


class Trunk(nn.Module):
    """A stem, four stages, a convolution with a bias and no batch norm; the mean over the picture."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4))
        for i, (before, width, kernel, stride) in enumerate(zip((4, *WIDTHS), WIDTHS, KERNELS, STRIDES), 1):
            setattr(self, f"stage{i}", Stage(before, width, kernel, stride))
        self.last = nn.Conv2d(WIDTHS[-1], FEATURES, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        for i in range(1, 5):
            x = getattr(self, f"stage{i}")(x)
        return F.relu(self.last(x)).mean((2, 3))


def backbone(seed: int) -> Backbone:
    """The tiny network in float64; its batch norms have scales and shifts of their own, and statistics of pictures."""
    torch.manual_seed(seed)
    trunk = Trunk().double()
    for module in trunk.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.6, 1.6)
            nn.init.uniform_(module.bias, -0.3, 0.5)
    for _ in range(30):
        trunk(torch.randn(8, 3, 12, 12, dtype=torch.float64) - 1)
    parts = {part: [getattr(trunk, part)] for part in PARTS}
    parts["stage4"].append(trunk.last)
    return Backbone(trunk, parts, FEATURES)


def encoded(state: State, images: Tensor, training: bool, track: bool = True) -> Tensor:
    """Features [B, d] of images by the tiny network's tensors; batch norms as `normalised`."""
    def convolution(x: Tensor, name: str, kernel: int, stride: int) -> Tensor:
        return normalised(state, f"{name}.1", F.conv2d(x, state[f"{name}.0.weight"], None, stride, kernel // 2), training, track)

    x = F.relu(convolution(images, "stem", 3, 1))
    for i, (kernel, stride) in enumerate(zip(KERNELS, STRIDES), 1):
        x = F.relu(convolution(x, f"stage{i}.main", kernel, stride) + convolution(x, f"stage{i}.shortcut", 1, stride))
    return F.relu(F.conv2d(x, state["last.weight"], state["last.bias"])).mean((2, 3))


def normalised(state: State, name: str, x: Tensor, training: bool, track: bool = True) -> Tensor:
    """Batch norm with momentum 0.1: in training by the batch, which (track) also moves the running statistics."""
    shape = (1, -1, *[1] * (x.ndim - 2))
    mean, variance = state[f"{name}.running_mean"], state[f"{name}.running_var"]
    if training:
        dims, count = [d for d in range(x.ndim) if d != 1], x.numel() // x.shape[1]
        batch_mean = x.mean(dims)
        batch_variance = (x - batch_mean.view(shape)).square().mean(dims)
        if track:
            mean.mul_(0.9).add_(0.1 * batch_mean.detach())
            variance.mul_(0.9).add_(0.1 * batch_variance.detach() * count / (count - 1))
        mean, variance = batch_mean, batch_variance
    scaled = (x - mean.view(shape)) / torch.sqrt(variance.view(shape) + 1e-5)
    return scaled * state[f"{name}.weight"].view(shape) + state[f"{name}.bias"].view(shape)


# --------------------------------------------------------------------------------------------------- pairs and pictures
def seed_of(seed: int, role: str, *indices: int) -> int:
    """The stream's seed: eight bytes of a hash of all that it depends on, without the top bit."""
    digest = hashlib.sha256(":".join(map(str, (seed, role, *indices))).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def drawn_alpha(seed: int, epoch: int, step: int, rows: int) -> Tensor:
    """The anchors' shares of the words: one for each row of each step."""
    return torch.rand(rows, generator=torch.Generator().manual_seed(seed_of(seed, "alpha", epoch, step))).double()


def shown(picture: np.ndarray, size: int, rounded: bool = False) -> np.ndarray:
    """A picture [S, S, 3] in 0..255 at the network's size (Pillow's bilinear reduction), by ImageNet's mean and deviation.

    rounded: Pillow gets whole grey levels, and then rounds to them after each of its two passes.
    """
    levels = np.rint(picture).astype(np.uint8) if rounded else picture.astype(np.float32)
    channels = [np.asarray(Image.fromarray(levels[:, :, c]).resize((size, size), Image.Resampling.BILINEAR)) for c in range(3)]
    return np.stack([(channel.astype(float) / 255 - mean) / deviation for channel, mean, deviation in
                     zip(channels, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))])


def moved(picture: np.ndarray, coins: np.ndarray, values: np.ndarray, fill: float, released: bool = False) -> np.ndarray:
    """The augmentation by SciPy: flip, scale and turn about the centre, shift.

    released: scale and turn about the top-left pixel's centre, black outside, the fraction of each grey level cut off. A value
    less than 2^-7 below a whole level counts as that level, since the product works in float32.
    """
    side = len(picture)
    flip, scale, turn, shift = coins
    sx, sy = 1 + 0.3 * values[:2] * scale
    angle = math.radians(30) * values[2] * turn
    offset = 10 / 256 * side * values[3:] * shift
    linear = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]) @ np.diag([sx, sy])
    back, centre = np.linalg.inv(linear), np.full(2, 0.0 if released else (side - 1) / 2)
    start = centre - back @ (centre + offset)
    # SciPy counts (row, column), the formulas (x, y)
    made = np.stack([ndimage.affine_transform((picture[:, ::-1] if flip else picture)[:, :, c].astype(float), back[::-1, ::-1],
                                              start[::-1], order=1, mode="grid-constant", cval=0 if released else fill)
                     for c in range(3)], -1)
    return np.floor(made + 2.0**-7) if released else made


def epoch_batches(config: Config, epoch: int, sketches: tuple[np.ndarray, np.ndarray], photos: tuple[np.ndarray, np.ndarray]
                  ) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(sketches, photos, labels) of each batch of an epoch, counted from 1, from (pictures, labels) of either side."""
    data, seed = config.data, config.seed
    pairs = np.random.default_rng(seed_of(seed, "pairs", epoch))
    order = pairs.permutation(len(photos[1]))
    replayed = data.loader_streams == "replayed"
    choices = (np.random.default_rng(seed_of(seed, "replayed sketches")) if replayed else pairs).random(len(order))
    batches = []
    for step, first in enumerate(range(0, len(order), data.batch_pairs)):
        places = range(first, min(first + data.batch_pairs, len(order)))
        if len(places) < 2:
            break
        geometry = np.random.default_rng(seed_of(seed, "augmentation", 1 if replayed else epoch, step))
        coins = geometry.random((4, len(places))) < 0.5
        values = geometry.uniform(-1, 1, (5, len(places)))
        rows = []
        for i, place in enumerate(places):
            label = photos[1][order[place]]
            candidates = np.flatnonzero(sketches[1] == label)
            sketch = sketches[0][candidates[int(choices[place] * len(candidates))]]
            photo = photos[0][order[place]]
            augmented = (moved(picture, coins[:, i], values[:, i], fill, data.augmentation == "released")
                         for picture, fill in ((sketch, data.sketch_fill), (photo, data.photo_fill)))
            rows.append((*(shown(picture, data.image_size, data.resize == "rounded") for picture in augmented), label))
        batches.append(tuple(np.stack(column) for column in zip(*rows)))
    return batches


# --------------------------------------------------------------------------------------------------- the model in training
@dataclass
class Oracle:
    """Tensors of both sides, hard-shared ones the same object in both, and Adam's moments.

    `start`: the encoders' first tensors; `embedding`: those of either side's embedding, and `words.*` of the word layers.
    """

    config: Config
    start: State
    embedding: dict[str, State]
    word_layers: State
    teacher: State
    classifier: Classifier
    words: Tensor
    encoders: dict[str, State] = field(init=False)
    moments: dict[int, list] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.encoders = {"sketch": copied(self.start), "photo": copied(self.start)}
        for name in self.start:
            if self.tie(name) == "hard":
                self.encoders["photo"][name] = self.encoders["sketch"][name]
        self.embedding = {side: copied(state) for side, state in self.embedding.items()}
        if self.config.coupling.embedding == "hard":
            for name in self.embedding["sketch"]:
                if not ("running" in name and self.config.network.embedding_norm == "per_modality"):
                    self.embedding["photo"][name] = self.embedding["sketch"][name]
        self.word_layers = copied(self.word_layers)

    def tie(self, name: str) -> str:
        """How the two encoders' tensors of this name are coupled."""
        coupling = self.config.coupling
        if "running" in name:
            return coupling.batch_norm_statistics
        if name.split(".")[-2] == "1":  # second in its sequence: the batch norm
            return coupling.batch_norm_affine
        return getattr(coupling, name.split(".")[0].replace("last", "stage4"))

    def tensors(self) -> dict[str, Tensor]:
        """Everything by name, shared ones under both sides' names."""
        return {**{f"{part}.{side}.{name}": tensor for part, sides in (("encoder", self.encoders), ("embedding", self.embedding))
                   for side, state in sides.items() for name, tensor in state.items()},
                **{f"words.{name}": tensor for name, tensor in self.word_layers.items()}}

    def retrieval(self, rows: Tensor, side: str, training: bool, track: bool = True, noise: torch.Generator | None = None
                  ) -> Tensor:
        """Linear, batch norm, and then dropout: a share of the numbers is 0, the others grow by what that takes."""
        state, share = self.embedding[side], self.config.network.dropout
        rows = normalised(state, "norm", rows @ state["projection.weight"].T + state["projection.bias"], training, track)
        if training and share:
            rows = rows * torch.empty_like(rows).bernoulli_(1 - share, generator=noise) / (1 - share)
        return rows

    def logits(self, head: str, features: Tensor, side: str) -> Tensor:
        """A head's logits on one side's features."""
        return features @ self.embedding[side][f"{head}.weight"].T + self.embedding[side][f"{head}.bias"]

    def features(self, sketches: Tensor, photos: Tensor, noise: torch.Generator) -> tuple[Tensor, Tensor]:
        """Retrieval features of a step's pairs, in parts as on several devices, of which the first keeps the statistics."""
        pairs, parts = len(sketches), max(1, min(self.config.network.batch_norm_split, len(sketches) // 2))
        sizes = [pairs // parts + (part < pairs % parts) for part in range(parts)]
        found: tuple[list, list] = [], []
        for part, (sketch, photo) in enumerate(zip(sketches.split(sizes), photos.split(sizes))):
            if self.config.coupling.call == "joint":
                raw = encoded(self.encoders["sketch"], torch.cat([sketch, photo]), True, part == 0).split(len(sketch))
            else:
                raw = [encoded(self.encoders[side], images, True, part == 0)
                       for side, images in (("sketch", sketch), ("photo", photo))]
            for rows, side, own in zip(raw, ("sketch", "photo"), found):
                own.append(self.retrieval(rows, side, True, part == 0, noise))
        return torch.cat(found[0]), torch.cat(found[1])

    def losses(self, sketches: Tensor, photos: Tensor, labels: Tensor, noise: torch.Generator, alpha: Tensor
               ) -> dict[str, Tensor]:
        """The mean of each term."""
        settings = self.config.losses
        sketch, photo = self.features(sketches, photos, noise)
        terms = {"class_sketch": F.cross_entropy(self.logits("class_head", sketch, "sketch"), labels),
                 "class_photo": F.cross_entropy(self.logits("class_head", photo, "photo"), labels)}
        if settings.distillation:
            taught = encoded(self.teacher, photos, False) @ self.classifier.weight.T + self.classifier.bias
            terms["distillation"] = distilled(self.logits("distillation_head", photo, "photo"), taught)
        tied = [(self.encoders["sketch"][name], self.encoders["photo"][name]) for name in self.start if self.tie(name) == "soft"]
        if self.config.coupling.embedding == "soft":
            tied += [(self.embedding["sketch"][f"projection.{name}"], self.embedding["photo"][f"projection.{name}"])
                     for name in ("weight", "bias")]
        if tied:
            terms["sharing"] = norms_one_by_one(tied)
        if not self.weight("semantic"):
            return terms
        features, both = torch.cat([sketch, photo]), torch.cat([labels, labels])

        def head(rows: Tensor) -> Tensor:
            halves = rows.split(len(sketch))
            return torch.cat([self.logits("class_head", half, side) for half, side in zip(halves, ("sketch", "photo"))])

        layers, words = self.word_layers, self.words[labels]
        if settings.semantic_form == "separate" or not settings.semantic:
            predicted = features @ layers["word_regression.weight"].T + layers["word_regression.bias"]
            terms["semantic"] = (batch_hard(features, features, both, head, settings.margin)
                                 + settings.regression * ((predicted - torch.cat([words, words])) ** 2).mean())
        else:
            projected = words @ layers["word_projection.weight"].T + layers["word_projection.bias"]
            terms["semantic"] = batch_hard(mixed(features, projected, alpha), features, both, head, settings.margin)
        return terms

    def weight(self, term: str) -> float:
        """A term's weight in the total."""
        losses = self.config.losses
        if term == "semantic" and not losses.semantic and losses.semantic_off == "as-released":
            return 1.0
        return getattr(losses, term)

    def step(self, batch: tuple[Tensor, Tensor, Tensor], noise: torch.Generator, alpha: Tensor, rates: dict[str, float]
             ) -> dict[str, float]:
        """One update by Adam (betas 0.9 and 0.999, 1e-8 beside the root), the decay part of the gradient; the terms' values."""
        learned = {id(t): (name.split(".")[0], t) for name, t in self.tensors().items() if "running" not in name}
        for _, tensor in learned.values():
            tensor.requires_grad_(True).grad = None
        terms = self.losses(*batch, noise, alpha)
        total = sum(self.weight(name) * value for name, value in terms.items())
        total.backward()
        for part, tensor in learned.values():
            if tensor.grad is None:  # took no part: stays, undecayed
                continue
            gradient = tensor.grad + self.config.training.weight_decay * tensor.detach()
            first, second, count = self.moments.get(id(tensor), (torch.zeros_like(gradient), torch.zeros_like(gradient), 0))
            first, second, count = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient ** 2, count + 1
            self.moments[id(tensor)] = first, second, count
            change = first / (1 - 0.9 ** count) / (torch.sqrt(second / (1 - 0.999 ** count)) + 1e-8)
            with torch.no_grad():
                tensor -= rates["encoder" if part == "encoder" else "head"] * change
        return {name: value.item() for name, value in {**terms, "total": total}.items()}

    def scored(self, pictures: np.ndarray, side: str) -> Tensor:
        """Retrieval features as they are scored: running statistics, no dropout, no augmentation."""
        images = torch.from_numpy(np.stack([
            shown(picture, self.config.data.image_size, self.config.data.resize == "rounded") for picture in pictures]))
        with torch.no_grad():
            return self.retrieval(encoded(self.encoders[side], images, False), side, False)

    def accuracy(self, pictures: np.ndarray, labels: np.ndarray) -> float:
        """Share of held-out sketches classified right, of each class, then the mean over classes."""
        right = self.logits("class_head", self.scored(pictures, "sketch"), "sketch").argmax(1).numpy() == labels
        return float(np.mean([right[labels == label].mean() for label in sorted(set(labels))]))


def copied(state: State) -> State:
    """Tensors of our own, in float64."""
    return {name: tensor.detach().double().clone() for name, tensor in state.items()}


def rate(base: float, epoch: int, epochs: int) -> float:
    """The learning rate of an epoch counted from 1: a thousandth's root is approached, and not reached."""
    return base * 10 ** (-3 * (epoch - 1) / (2 * epochs))


def released_map(queries: Tensor, photos: Tensor, query_labels: np.ndarray, photo_labels: np.ndarray) -> float:
    """mAP@all as TCN's tables have it: unit length, Euclidean, precision made non-increasing; over queries, then over classes."""
    queries, photos = (rows / rows.norm(dim=1, keepdim=True) for rows in (queries, photos))
    of_class: dict[int, list[float]] = {}
    for query, label in zip(queries, query_labels.tolist()):
        order = (photos - query).norm(dim=1).argsort()
        ranks = [rank for rank, photo in enumerate(order.tolist(), 1) if photo_labels[photo] == label]
        precisions = [found / rank for found, rank in enumerate(ranks, 1)]
        of_class.setdefault(label, []).append(float(np.mean([max(precisions[i:]) for i in range(len(precisions))])))
    return float(np.mean([np.mean(values) for values in of_class.values()]))
