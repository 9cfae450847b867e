"""`python -m esm` is `esm`."""

from esm.cli import main

if __name__ == "__main__":
    main()
