"""`python -m offapi`, which launchers such as torchrun start: the `offapi` command."""

from offapi.cli import main

if __name__ == "__main__":
    main()
