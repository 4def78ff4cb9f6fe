"""Tests that hold for every way to compute a model, not only for the one that `auto` takes."""

import pytest

EVERY = pytest.mark.parametrize("implementation", ["packed", "library"], indirect=True)
"""Run a test that loads a backend with both; a backend that lacks one skips it."""
