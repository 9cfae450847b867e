"""How fast, against the bare loop, in one run. By hand: `make bench`."""
