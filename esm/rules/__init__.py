"""AWS's behaviour and ours as pure functions and small machines: no I/O, no clock, no await, no randomness."""
