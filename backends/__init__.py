"""The backends, installed as `offapi.backends`; importing them as `backends` is refused."""

if __name__ != "offapi.backends":
    raise ImportError(
        "Import this package as `offapi.backends`, from an installed offapi (`pip install -e .`)."
    )
