"""Pictures: every function returns a matplotlib Figure."""

from jaxsbi.plots.calibration import calibration
from jaxsbi.plots.corner import corner

__all__ = ["calibration", "corner"]
