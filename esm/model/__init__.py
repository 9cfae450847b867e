"""Nouns: frozen values, no I/O, no clock. Imports nothing of ours."""
