"""Run the benchmarks: `python -m bench` all of them, `python -m bench step_time mnist` some."""

import subprocess
import sys

BENCHES = (
    *("reading", "resample", "mutated", "agreement", "inspect"),
    *("deidentify", "leaks", "midi_b", "burned_in"),
    *("ingest", "ingest_cores", "stores", "near_duplicates", "versions", "nights", "quiet_nights"),
    *("segmentation_measures", "sliding_window", "quiet_masks", "cardiac_mr", "phantom_lesions"),
    *("networks", "precision", "step_time", "fit_start", "epoch_choice"),
    *("ct_contrast", "pneumoniamnist", "mnist"),
)


def main(names: list[str]) -> int:
    unknown = set(names) - set(BENCHES)
    if unknown:
        print(f"no benchmark is called {', '.join(sorted(unknown))}: choose from {', '.join(BENCHES)}")
        return 2
    failed = []
    for name in names or BENCHES:
        print(f"== {name}", flush=True)
        # A process each: what one leaves in memory does not slow the next.
        if subprocess.run([sys.executable, "-m", f"bench.{name}"], check=False).returncode:
            failed.append(name)
    print(f"failed: {', '.join(failed)}" if failed else "all done")
    return len(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
