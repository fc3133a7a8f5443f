"""A suite's own MLflow store in a folder that was moved, copied or sent: its artifact addresses are set to where it is now.

In: an output folder with mlflow.db. Out: the same store, whose experiments and runs name this folder. MLflow keeps addresses as
absolute paths, and no relative ones; everything else in an output folder is relative. `make ui` calls this as a script, and every
call of the command that opens the store does so too.
"""
from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path

from tcn.cli.ending import ending
from tcn.config import InputError

STORE, ARTIFACTS = "mlflow.db", "mlartifacts"
WAIT_SECONDS = 30.0
"""How long another process may hold the store."""


def address(store: Path) -> str:
    """Address of an SQLite file, as MLflow takes it."""
    path = str(store.resolve())
    for sign in "%?#":  # SQLAlchemy reads the path of such an address with these escaped
        path = path.replace(sign, f"%{ord(sign):02X}")
    return f"sqlite:///{path}"


def artifact_root(output: Path) -> str:
    """Address of a suite's artifacts as MLflow keeps it."""
    return (output / ARTIFACTS).resolve().as_uri()


def set_addresses(output: Path) -> int:
    """Let the store in `output` name the folder it lies in; returns how many addresses named another. A copy has a store of its
    own, so both live on. InputError where there is none, it is damaged, or it can't be written."""
    store, root = output / STORE, artifact_root(output)
    if not store.is_file():
        raise InputError(f"{store} does not exist: no runs there yet; run the command with this --output first")
    try:
        with contextlib.closing(sqlite3.connect(store, timeout=WAIT_SECONDS)) as database:
            changes = _changes(database, root)
            if changes:
                if not os.access(store, os.W_OK):
                    raise sqlite3.OperationalError("not writable")
                database.execute("PRAGMA secure_delete = ON")  # the old addresses go from the file, not only from its tables
                with database:
                    for statement, values in changes:
                        database.execute(statement, values)
            return len(changes)
    except sqlite3.OperationalError as error:
        raise InputError(f"{store} names another folder for its artifacts and can't be changed ({error}); copy {output} to where "
                         f"you may write, and open the copy") from error
    except sqlite3.Error as error:
        raise InputError(f"{store} can't be read ({error}); move it away and give `run_all.py --sync`: it is made anew"
                         ) from error


def _changes(database: sqlite3.Connection, root: str) -> list[tuple[str, tuple[str, str]]]:
    """Statements with their values. What MLflow's users added beside our experiments stays as it is."""
    found: list[tuple[str, tuple[str, str]]] = []
    if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'runs'").fetchone():
        return found  # MLflow has yet to make its tables
    for number, name, place in database.execute("SELECT experiment_id, name, artifact_location FROM experiments").fetchall():
        # MLflow makes `Default` on its own, below the folder in which the first process was started.
        ours = (place or "").endswith(f"/{ARTIFACTS}")
        wanted = f"{root}/{number}" if name == "Default" else root if ours else place
        if wanted != place:
            found.append(("UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?", (wanted, number)))
    for run, place in database.execute("SELECT run_uuid, artifact_uri FROM runs").fetchall():
        tail = f"/{run}/artifacts"
        if (place or "").endswith(f"/{ARTIFACTS}{tail}") and place != root + tail:
            found.append(("UPDATE runs SET artifact_uri = ? WHERE run_uuid = ?", (root + tail, run)))
    return found


@ending()
def main(arguments: Sequence[str] | None = None) -> int:
    """`python benchmarks/moved.py OUTPUT`: prints the store's address. Returns the exit status: 0, or 2 where the store can't be
    used."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if len(given) != 1:
        print("usage: python benchmarks/moved.py OUTPUT", file=sys.stderr)
        return 2
    changed = set_addresses(Path(given[0]))
    if changed:
        print(f"{given[0]} was moved or copied: {changed} addresses of artifacts in {STORE} set to it", file=sys.stderr)
    print(address(Path(given[0]) / STORE))
    return 0


if __name__ == "__main__":
    sys.exit(main())
