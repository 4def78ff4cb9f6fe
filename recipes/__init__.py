"""The recipes, installed as `offapi.recipes`.

This folder refuses to be imported under its bare name.
"""

if __name__ != "offapi.recipes":
    raise ImportError(
        "Import this package as `offapi.recipes`, from an installed offapi (`pip install -e .`)."
    )
