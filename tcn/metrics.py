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

__all__ = ["ALL", "evaluate", "identical_rows", "merged", "METRICS", "precision_recall", "Protocol", "PROTOCOLS", "rank", "score", "Scores", "spellings_of", "TIES"]
