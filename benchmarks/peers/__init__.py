"""Side-by-side timings against other libraries, each in its own virtual environment."""

from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run `python -m benchmarks peers`."""
    from benchmarks.peers.compare import main as compare

    return compare(argv)
