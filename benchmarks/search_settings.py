"""The command of `benchmarks.tools.search_settings` under its first path, which keeps working."""
import sys

from benchmarks.tools.search_settings import main

if __name__ == "__main__":
    sys.exit(main())
