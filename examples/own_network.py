"""A network of one's own, trained from random weights: edges of both modalities, then one small convolutional network for all.

Photos are turned into edges before they meet the network, so that both modalities look alike;
nothing of TCN's is used but the pairs.
"""
import torch
from torch import nn
from torch.nn import functional as F

from baselines import Variant
from tcn.method import LossTerms, Method, Modality, OwnModel, classification

SOBEL = torch.tensor([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]])


class EdgeNet(OwnModel):
    def __init__(self, config, ingredients):
        super().__init__()
        self.register_buffer("edges", torch.stack([SOBEL, SOBEL.T])[:, None], persistent=False)
        widths = (1, 16, 32, 64)
        self.layers = nn.Sequential(*(nn.Sequential(nn.Conv2d(few, many, 3, stride=2, padding=1), nn.BatchNorm2d(many), nn.ReLU())
                                      for few, many in zip(widths, widths[1:])))
        self.project = nn.Linear(widths[-1], config.network.dim)
        self.heads = nn.ModuleDict({side.value: nn.Linear(config.network.dim, ingredients.classes) for side in Modality})

    def encode(self, images, modality, side=None):
        gradients = F.conv2d(images.mean(1, keepdim=True), self.edges, padding=1)
        maps = self.layers(gradients.square().sum(1, keepdim=True).add(1e-6).sqrt())
        return self.project(maps.mean((2, 3)))

    def classify(self, features, modality):
        return self.heads[modality.value](features)


def losses(model, batch, config, generator):
    features = {side: model.encode(images, side) for side, images in zip(Modality, (batch.sketches, batch.photos))}
    terms = {f"class_{side.value}": classification(model.classify(features[side], side), batch.labels) for side in Modality}
    terms["apart"] = (features[Modality.SKETCH] - features[Modality.PHOTO]).square().mean(1)
    return LossTerms(terms, {"class_sketch": 1.0, "class_photo": 1.0, "apart": 0.1})


VARIANTS = (Variant("edge-net", "Edges, a network of its own", "how far edges and a small network without ImageNet get",
                    method=Method("edge-net", EdgeNet, losses)),)
