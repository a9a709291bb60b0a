"""The implementations of attention: one module a backend, the best first in `registry`."""
