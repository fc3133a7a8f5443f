"""The command of `benchmarks.tools.make_emoji_split` under its first path, which keeps working."""
import sys

from benchmarks.tools.make_emoji_split import main

if __name__ == "__main__":
    sys.exit(main())
