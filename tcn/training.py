"""Public names of `tcn.train.loop`, importable under this shorter name."""
from tcn.train.loop import (
    Diverged,
    History,
    ValidationData,
    adam,
    class_accuracy,
    fit,
    learning_rate,
    train_step,
    validate,
)

__all__ = ["adam", "class_accuracy", "Diverged", "fit", "History", "learning_rate", "train_step", "validate", "ValidationData"]
