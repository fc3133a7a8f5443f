"""Public names of `tcn.model.embedding`, importable under this shorter name."""
from tcn.model.embedding import (
    Embedding,
    ModalityBatchNorm,
    SharedBatchNorm,
    svd_start,
)

__all__ = ["Embedding", "ModalityBatchNorm", "SharedBatchNorm", "svd_start"]
