"""What can be done with a trained emulator, beside drawing from its posterior."""

from jaxsbi.emulators.acquisition import acquire
from jaxsbi.emulators.model import emulator_model
from jaxsbi.emulators.predict import check_range, emulate, emulate_with_error, training_range

__all__ = [
    "acquire",
    "check_range",
    "emulate",
    "emulate_with_error",
    "emulator_model",
    "training_range",
]
