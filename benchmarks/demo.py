"""The command of `benchmarks.demo.command` under a short path."""
import sys

from benchmarks.demo.command import main

if __name__ == "__main__":
    sys.exit(main())
