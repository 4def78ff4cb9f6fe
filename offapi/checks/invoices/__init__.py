"""Checks for one kind of document, and the model of a package of checks of your own.

Such a package is a folder of modules, one a question, each with functions that make a check of a
field's name: `final_total("total")` returns a function of (document, answer, context). It reads the
document with whatever suits that kind, says why in every `Verdict`, and never raises. It needs no
registration: install it, or put it on PYTHONPATH, and import it in the task file:

    from my_checks.contracts import signed_by_both

    checks={"signed": (signed_by_both("parties"), 1.0)}
"""
