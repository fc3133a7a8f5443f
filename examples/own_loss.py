"""A loss of one's own on TCN's network: every sketch is to pick the photos of its class out of the batch (InfoNCE),
and the reverse."""
import torch
from torch.nn import functional as F

from baselines import Variant
from tcn.method import LossTerms, Method, TcnModel, classification

TEMPERATURE = 0.1


def pick(queries, gallery, labels):
    """[B]: minus the logarithm of the share that the gallery's items of each query's class get, features [B, D]."""
    logits = F.normalize(queries) @ F.normalize(gallery).T / TEMPERATURE
    others = labels[:, None] != labels[None]
    return logits.logsumexp(1) - logits.masked_fill(others, -torch.inf).logsumexp(1)


def losses(model, batch, config, generator):
    out = model.network(batch.sketches, batch.photos)
    terms = {"pick_photo": pick(out.sketch_features, out.photo_features, batch.labels),
             "pick_sketch": pick(out.photo_features, out.sketch_features, batch.labels),
             "class_sketch": classification(out.sketch_logits, batch.labels),
             "class_photo": classification(out.photo_logits, batch.labels)}
    return LossTerms(terms, dict.fromkeys(terms, 1.0))


VARIANTS = (Variant("info-nce", "InfoNCE across modalities", "what picking the class out of the batch is worth",
                    {"losses.semantic": 0.0, "losses.sharing": 0.0}, method=Method("info-nce", TcnModel, losses)),)
