"""The command of `benchmarks.extension.cross_dataset` under a short path."""
import sys

from benchmarks.extension.cross_dataset import main

if __name__ == "__main__":
    sys.exit(main())
