"""The made-up next version as a program: `python -m tests.end_to_end.next_version`, used like `python -m esm`."""

from esm.cli import main
from tests import next_format

if __name__ == "__main__":
    next_format.learn()
    main()
