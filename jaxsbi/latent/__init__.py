"""The latent map: NumPyro distributions seen from a standard normal.

`routes` decides (once) which map a distribution takes, `maps` follows it; `tails`, `solved`,
`truncated` and `gaussian` hold the families, `special` the arithmetic, `usable` the limits of
float32; `model` reads NumPyro models.
"""

from jaxsbi.latent.maps import from_latent, latent_log_prob, log_prob, to_latent
from jaxsbi.latent.model import run, survey
from jaxsbi.latent.routes import KINDS, PriorError, Route, choose, refuse, strip_masks
from jaxsbi.latent.special import FAR, log1mexp, log_normal_density
from jaxsbi.latent.truncated import log_mass, truncated_from_z
from jaxsbi.latent.usable import is_usable

__all__ = [
    "FAR",
    "KINDS",
    "PriorError",
    "Route",
    "choose",
    "from_latent",
    "is_usable",
    "latent_log_prob",
    "log1mexp",
    "log_mass",
    "log_normal_density",
    "log_prob",
    "refuse",
    "run",
    "strip_masks",
    "survey",
    "to_latent",
    "truncated_from_z",
]
