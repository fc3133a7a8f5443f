"""The command of `benchmarks.tools.mutants` under its first path, which keeps working."""
import sys

from benchmarks.tools.mutants import main

if __name__ == "__main__":
    sys.exit(main())
