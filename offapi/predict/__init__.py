"""Answers to documents: every field with its value, its place in the document and how sure it is.

`offapi predict` and `offapi.open` are its ways in. Left out: grading answers against gold
(`offapi.evaluation`), and making confidences (`offapi.confidence`).
"""
