"""Public names of `tcn.scoring`, importable under this shorter name: protocols and scores."""
from tcn.scoring.inputs import METRICS, identical_rows, merged, spellings_of
from tcn.scoring.instances import INSTANCE_KS, InstanceScores, instance_accuracy
from tcn.scoring.protocols import ALL, PROTOCOLS, Protocol
from tcn.scoring.retrieve import RECALLS, precision_recall, rank
from tcn.scoring.scores import TIES, Scores, evaluate, score

__all__ = ["evaluate", "score", "Scores", "PROTOCOLS", "Protocol", "ALL", "METRICS", "TIES", "RECALLS", "rank",
           "precision_recall", "spellings_of", "merged", "identical_rows", "instance_accuracy", "InstanceScores", "INSTANCE_KS"]
