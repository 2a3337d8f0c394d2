"""What a mask speaks of."""

import numpy as np
import pytest

from jaxsbi import missing

MASK = np.array([[True, False], [False, False]])
BESIDE = {
    "members": ({"values": np.ones((2, 2, 3)), "mask": MASK}, [""]),
    "numbers": ({"values": np.ones((2, 2)), "mask": MASK}, [""]),
    "a part": ({"bag": {"values": np.ones((2, 2)), "mask": MASK}, "a": np.ones(2)}, ["['bag']"]),
    "edges": ({"edges": {"senders": np.ones((2, 2), int), "mask": MASK}}, ["['edges']"]),
    "another shape": ({"values": np.ones((2, 3)), "mask": MASK}, []),
    "nothing": ({"mask": MASK}, []),
    "numbers of that name": ({"values": np.ones((2, 2)), "mask": MASK.astype(float)}, []),
    "an array": (np.ones((2, 2)), []),
}


@pytest.mark.parametrize(("x", "places"), BESIDE.values(), ids=BESIDE)
def test_a_mask_speaks_of_what_is_beside_it(x, places):
    assert list(missing.masks(x)) == places
