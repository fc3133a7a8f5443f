"""The command of `reports.render.command` under its first path, which keeps working."""
import sys

from reports.render.command import main

if __name__ == "__main__":
    sys.exit(main())
