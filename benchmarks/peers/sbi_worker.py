"""Run by a peer's own Python: train and sample with sbi, and print one JSON line per result.

Imports nothing of jaxsbi. Default settings throughout, as a user would run it.
"""

from __future__ import annotations

import argparse
import json
import time


def main() -> None:
    """Train one method on stored simulations, draw, and store draws and timings."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--method", choices=["npe", "nle", "nre"], required=True)
    parser.add_argument("--density", default=None)
    parser.add_argument("--draws", type=int, required=True)
    parser.add_argument("--out", required=True)
    arguments = parser.parse_args()

    import numpy as np
    import sbi
    import torch
    from sbi.inference import NLE, NPE, NRE

    torch.manual_seed(0)
    data = np.load(arguments.data)
    theta = torch.tensor(data["theta"], dtype=torch.float32)
    x = torch.tensor(data["x"], dtype=torch.float32)
    prior = torch.distributions.Independent(
        torch.distributions.Uniform(
            torch.tensor(data["low"], dtype=torch.float32),
            torch.tensor(data["high"], dtype=torch.float32),
        ),
        1,
    )
    make = {"npe": NPE, "nle": NLE, "nre": NRE}[arguments.method]
    options = {"density_estimator": arguments.density} if arguments.density else {}
    inference = make(prior=prior, show_progress_bars=False, **options)
    begin = time.perf_counter()
    inference.append_simulations(theta, x).train()
    train = time.perf_counter() - begin
    posterior = inference.build_posterior()
    sampling, samples = [], []
    for row in data["observations"]:
        observation = torch.tensor(row, dtype=torch.float32)[None]
        begin = time.perf_counter()
        draws = posterior.sample((arguments.draws,), x=observation, show_progress_bars=False)
        sampling.append(time.perf_counter() - begin)
        samples.append(draws.reshape(arguments.draws, -1).numpy())
    np.savez_compressed(arguments.out, draws=np.stack(samples).astype(np.float32))
    summary = getattr(inference, "_summary", {}) or {}
    epochs = (summary.get("epochs_trained") or [None])[-1]
    result = {
        "library": "sbi",
        "version": sbi.__version__,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "train_seconds": train,
        "epochs": epochs,
        "sample_seconds": sampling,
    }
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
