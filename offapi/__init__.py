"""offapi: train a small model of your own, on your own machine, with no network."""
