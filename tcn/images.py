"""Public names of `tcn.data.augment`, importable under this shorter name."""
from tcn.data.augment import (
    Geometry,
    affine,
    augment,
    augment_as_released,
    draw_geometry,
    resize,
    to_network,
)

__all__ = ["affine", "augment", "augment_as_released", "draw_geometry", "Geometry", "resize", "to_network"]
