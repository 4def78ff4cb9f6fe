"""A trained model in the forms that other runtimes open, each opened there again: `offapi export`.

Left out: pushing it anywhere.
"""
