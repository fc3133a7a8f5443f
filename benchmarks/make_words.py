"""The command of `benchmarks.tools.make_words` under its first path, which keeps working."""
import sys

from benchmarks.tools.make_words import main

if __name__ == "__main__":
    sys.exit(main())
