"""Public names of `tcn.train.method`, and of what it speaks of: all that a method of one's own imports from here."""
from tcn.config import Config, InputError, Modality
from tcn.data.pairs import PairBatch
from tcn.train.losses import classification, distillation
from tcn.train.method import Ingredients, LossTerms, Method, OwnModel, TcnModel, soft_tying, tcn_losses

__all__ = ["classification", "Config", "distillation", "Ingredients", "InputError", "LossTerms", "Method", "Modality", "OwnModel",
           "PairBatch", "soft_tying", "tcn_losses", "TcnModel"]
