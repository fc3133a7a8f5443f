"""Public names of `tcn.scoring.metrics`, importable under this shorter name."""
from tcn.scoring.metrics import (
    ALL,
    METRICS,
    PROTOCOLS,
    TIES,
    Protocol,
    Scores,
    evaluate,
    identical_rows,
    merged,
    precision_recall,
    rank,
    score,
    spellings_of,
)

__all__ = ["evaluate", "score", "Scores", "PROTOCOLS", "Protocol", "ALL", "METRICS", "TIES", "rank", "precision_recall", "spellings_of", "merged", "identical_rows"]
