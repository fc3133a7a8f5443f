"""The command of `benchmarks.extension.digits` under its first path, which keeps working."""
import sys

from benchmarks.extension.digits import main

if __name__ == "__main__":
    sys.exit(main())
