"""Answers that keep to their schema, to what the document prints, and to lists of names."""

from offapi.constrain.constraints import Constraints
from offapi.constrain.fields import LEVELS, Level

__all__ = ["LEVELS", "Constraints", "Level"]
