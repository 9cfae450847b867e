"""What goes on the path of interpreters that the compiled runtime client does not fit."""
