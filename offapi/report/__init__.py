"""What became of a run, as one page: a self-contained HTML file, or Markdown with the same figures.

`run_files` gathers what a run wrote, `story` computes the figures, `html` and `markdown` lay them
out. Nothing is executed: neither the run's task file nor anything found in its files.
"""
