"""Pictures: every function returns a matplotlib Figure."""

from jaxsbi.plots.corner import corner

__all__ = ["corner"]
