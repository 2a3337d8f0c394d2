"""Simulators outside JAX: any Python function or command line, on any executor.

- `simulate`: `simulate_external`, what a user calls.
- `command`: a command line as such a function.
- `driver`: keeps an executor busy, tries again, and sees worker processes die.
- `worker`: one attempt at one draw, where the function runs.
- `results`: from what came back to arrays; what is invalid.
"""

from jaxsbi.external.command import command
from jaxsbi.external.simulate import simulate_external

__all__ = ["command", "simulate_external"]
