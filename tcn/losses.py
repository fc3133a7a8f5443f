"""Public names of `tcn.train.losses`, importable under this shorter name."""
from tcn.train.losses import (
    anchor_distances,
    batch_hard,
    classification,
    distillation,
    entropy,
    semantic_metric,
    semantic_regression,
    sharing_norms,
    soft_sharing,
)

__all__ = ["anchor_distances", "batch_hard", "classification", "distillation", "entropy", "semantic_metric",
           "semantic_regression", "sharing_norms", "soft_sharing"]
