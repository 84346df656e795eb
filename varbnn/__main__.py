"""`python -m varbnn`, the same as the command `varbnn`."""

from varbnn.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
