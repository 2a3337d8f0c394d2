"""How long does `import jaxsbi` take beyond its dependencies?

    python -m benchmarks.import_time --out benchmarks/results/import_time.json

A fresh process imports every module of others that `import jaxsbi` loads, in the same order, and
then times `import jaxsbi`; another times `import jaxsbi` alone. Repeated, alternating.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks.environment import write

LIST = """
import sys
before = set(sys.modules)
import jaxsbi
print([name for name in sys.modules if name not in before and name.split(".")[0] != "jaxsbi"])
"""
TIME = """
import importlib, time
for name in {modules}:
    try:
        importlib.import_module(name)
    except ImportError:
        pass  # a name that its package puts into sys.modules by hand
begin = time.perf_counter()
import jaxsbi
print(time.perf_counter() - begin)
"""


def main() -> None:
    """Time both imports and write the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/import_time.json"))
    options = parser.parse_args()
    modules = _python(LIST)
    seconds: dict[str, list[float]] = {"with_dependencies": [], "beyond_dependencies": []}
    for _ in range(options.repeats):
        seconds["with_dependencies"].append(float(_python(TIME.format(modules=[]))))
        seconds["beyond_dependencies"].append(float(_python(TIME.format(modules=modules))))
    report = {
        "median_seconds": {name: round(statistics.median(s), 3) for name, s in seconds.items()},
        "seconds": {name: [round(value, 3) for value in s] for name, s in seconds.items()},
    }
    write(options.out, report)
    print(json.dumps(report["median_seconds"]))


def _python(program: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    ).stdout.strip()


if __name__ == "__main__":
    main()
