"""Public names of `tcn.scoring.codes`, importable under this shorter name."""
from tcn.scoring.codes import (
    Rotation,
    binary_codes,
    itq,
)

__all__ = ["binary_codes", "itq", "Rotation"]
