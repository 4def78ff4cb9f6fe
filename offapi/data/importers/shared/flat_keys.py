"""Turn attributes whose keys are paths, `a.0.b.c`, back into objects and arrays."""

from __future__ import annotations

from collections.abc import Mapping

from offapi.data.importers.shared.loose_json import Json, obj, opened
from offapi.data.importers.shared.reasons import GAP, Unusable

Tree = dict[str, Json]


def numbered_array(attributes: Mapping[str, Json], prefix: str) -> list[Json]:
    """Return the array in the attributes below `prefix`, whether flat, nested or half of each."""
    tree: Tree = {}
    for key, value in attributes.items():
        if key.startswith(prefix + "."):
            _put(tree, key[len(prefix) + 1 :].split("."), value)
        elif key == prefix and isinstance(opened(value), list):
            for i, each in enumerate(opened(value)):
                _put(tree, [str(i)], each)
        elif prefix.startswith(key + ".") and isinstance(value, dict):
            return numbered_array(value, prefix[len(key) + 1 :])
    array = _array(tree)
    return array if isinstance(array, list) else []


def value_at_key(attributes: Mapping[str, Json], key: str) -> Json:
    """Return the value at the path `key`, whether the attributes are flat or nested."""
    if key in attributes:
        return attributes[key]
    head, _, rest = key.partition(".")
    if rest and isinstance(attributes.get(head), dict):
        return value_at_key(obj(attributes.get(head)), rest)
    return None


def _put(tree: Tree, path: list[str], value: Json) -> None:
    """Set the value at `path`; the keys of an object there may be paths too."""
    for step in path[:-1]:
        tree = tree.setdefault(step, {})
        if not isinstance(tree, dict):  # a value where others have a branch: the first one stays
            return
    if isinstance(value, dict) and value:
        for key, each in value.items():
            _put(tree, [path[-1], *key.split(".")], each)
    elif isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
        for i, each in enumerate(value):
            _put(tree, [path[-1], str(i)], each)
    else:
        tree.setdefault(path[-1], value)


def _array(tree: Json) -> Json:
    """Return `tree` with objects whose keys are all numbers as arrays, in the numbers' order.

    Raise Unusable where a number is missing.
    """
    if not isinstance(tree, dict):
        return tree
    below = {key: _array(value) for key, value in tree.items()}
    if below and all(key.isdecimal() and key.isascii() for key in below):
        if sorted(map(int, below)) != list(range(len(below))):
            raise Unusable(GAP)
        return [below[key] for key in sorted(below, key=int)]
    return below
