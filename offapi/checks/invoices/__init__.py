"""Checks for one kind of document, and a model for a package of your own checks.

Such a package is a folder of modules, one for each question. Its functions take a field's name and
return a check: `final_total("total")` returns a function of (document, answer, context). A check
reads the document in whatever way suits that kind, gives a reason in every `Verdict`, and never
raises. It needs no registration: install the package, or put it on PYTHONPATH, and import it in the
task file:

    from my_checks.contracts import signed_by_both

    checks={"signed": (signed_by_both("parties"), 1.0)}
"""
