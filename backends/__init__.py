"""The backends, installed as `offapi.backends`.

This folder refuses to be imported under its bare name.
"""

if __name__ != "offapi.backends":
    raise ImportError(
        "Import this package as `offapi.backends`, from an installed offapi (`pip install -e .`)."
    )
