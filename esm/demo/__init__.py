"""The demo: an embedded local AWS, records written all the time, and the daemon, killed halfway.

Law: it stands outside the daemon, as an operator does. It knows the command, the configuration file, /metrics and
/status, and the services' own APIs; nothing of the program's insides but its kinds of failure.
"""

from esm.demo.play import run_demo

__all__ = ["run_demo"]
