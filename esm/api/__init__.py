"""HTTP that the daemon itself speaks."""
