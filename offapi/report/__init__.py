"""The report of a run: a self-contained HTML page, or Markdown with the same figures.

`run_files` reads what a run wrote, `story` computes the figures, `html` and `markdown` render them.
Nothing is executed: neither the run's task file nor anything found in its files.
"""
