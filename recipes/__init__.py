"""The recipes, installed as `offapi.recipes`.

They cannot be imported under the bare name of this folder.
"""

if __name__ != "offapi.recipes":
    raise ImportError(
        "Import this package as `offapi.recipes`, from an installed offapi (`pip install -e .`)."
    )
