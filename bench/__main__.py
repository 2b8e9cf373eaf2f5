"""`python -m bench` runs every script; `python -m bench train_step` one."""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
TOOLS = {"__init__", "__main__", "apart", "pairs", "toy"}


def main() -> None:
    names = sorted(path.stem for path in HERE.glob("*.py") if path.stem not in TOOLS)
    wanted = sys.argv[1:] or names
    for name in wanted:
        if name not in names:
            sys.exit(f"There is no bench {name!r}. There are: {', '.join(names)}")
        print(f"\n== {name}", flush=True)
        subprocess.run([sys.executable, "-m", f"bench.{name}"], check=False)


if __name__ == "__main__":
    main()
