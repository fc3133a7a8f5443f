"""A frozen encoder: nothing is trained; its features are scored as they are, and standardised per modality on seen drawings."""
from baselines import Variant
from tcn.method import Method, OwnModel
from tcn.model import backbones


class Frozen(OwnModel):
    def __init__(self, config, ingredients):
        super().__init__()
        # Any nn.Module from images [B, 3, H, W] to features [B, d] may stand here, with its weights read from a file of yours.
        self.encoder = backbones.encoder("efficientnet_lite2", "imagenet").requires_grad_(False)

    def encode(self, images, modality, side=None):
        return self.encoder(images)


SETTINGS = {"training.optimizer": "none"}
LITE2 = Method("frozen-lite2", Frozen)
VARIANTS = (Variant("untrained-lite2", "Frozen EfficientNet-Lite2", "no training: its pooled features", SETTINGS, method=LITE2),
            Variant("untrained-lite2-permodality", "Frozen EfficientNet-Lite2, per-modality statistics", "the same, standardised",
                    {**SETTINGS, "evaluation.statistics": "per_modality"}, method=LITE2))
