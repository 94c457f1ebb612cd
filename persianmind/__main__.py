"""`python -m persianmind`: the same as the command `persianmind`; what launchers of several ranks start."""

from persianmind.cli import main

if __name__ == "__main__":
    main()
