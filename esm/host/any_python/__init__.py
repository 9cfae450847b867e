"""What stands in for the runtime client's compiled module where that does not fit the interpreter."""
