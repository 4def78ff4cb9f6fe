"""Files and fine-tuning jobs in OpenAI's shape, over the recipes: `offapi serve --jobs DIR`.

Left out: training itself, which is a command of its own in a process of its own.
"""
