"""`python -m bench` runs every script that takes minutes; `python -m bench train_step` one, the long ones too."""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
TOOLS = {
    "__init__", "__main__", "apart", "arrivals", "commits", "commits_side", "explain_page_side", "first_job",
    "fuzz_client", "fuzz_document", "fuzz_images", "fuzz_requests", "fuzz_sieges", "golden",
    "golden_compare", "golden_data", "golden_side", "kept", "litserve_side", "load_numbers", "open_loop", "pairs",
    "queue_governor", "scene_methods", "serve_loads", "serve_tables", "served", "simulated_scene", "toy",
}  # fmt: skip
HOURS = {"family", "positions", "learn", "int8", "robustness", "robustness_oracles", "serve", "wetlands"}
"""Benches that train for long, or need trained runs or an environment of their own: run when they are named."""


def main() -> None:
    names = sorted(path.stem for path in HERE.glob("*.py") if path.stem not in TOOLS)
    wanted = sys.argv[1:] or [name for name in names if name not in HOURS]
    for name in wanted:
        if name not in names:
            sys.exit(f"There is no bench {name!r}. There are: {', '.join(names)}")
        print(f"\n== {name}", flush=True)
        subprocess.run([sys.executable, "-m", f"bench.{name}"], check=False)


if __name__ == "__main__":
    main()
