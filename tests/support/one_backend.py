"""Run offapi's commands in a process that lacks some packages, as an install with one backend does.

one_backend.py PACKAGES COMMANDS, both JSON; each command's code and stderr are printed as JSON.
"""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stderr, redirect_stdout

import orjson


def main() -> None:
    """Hide the packages, then import offapi and run the commands."""
    packages, commands = map(orjson.loads, sys.argv[1:])
    sys.modules.update(dict.fromkeys(packages))  # imports fail, and find_spec finds nothing
    from offapi import cli

    done = []
    for words in commands:
        out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
        with redirect_stdout(out), redirect_stderr(err):
            code = cli.run(words)
        done.append((code, *(stream.buffer.getvalue().decode() for stream in (out, err))))
    print(orjson.dumps(done).decode())


if __name__ == "__main__":
    main()
