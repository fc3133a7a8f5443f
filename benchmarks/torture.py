"""The command of `benchmarks.tools.torture` under its first path, which keeps working."""
import sys

from benchmarks.tools.torture import main

if __name__ == "__main__":
    sys.exit(main())
