"""The command of `benchmarks.tools.safety_cost` under its first path, which keeps working."""
import sys

from benchmarks.tools.safety_cost import main

if __name__ == "__main__":
    sys.exit(main())
