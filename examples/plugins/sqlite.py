#!/usr/bin/env python3
"""The tables of a SQLite database as directories, with a JSON file for each row: sqlite.py DATABASE.

The database is read anew whenever somebody looks; nothing is ever written to it.
"""

import json
import os
import pathlib
import sqlite3
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../plugins/python"))

import vfsd_plugin as vfsd  # noqa: E402  pylint: disable=wrong-import-position


class Database:
    """A database that is only read, by one thread at a time."""

    def __init__(self, path):
        location = pathlib.Path(path).resolve().as_uri() + "?mode=ro"
        self.connection = sqlite3.connect(location, uri=True, check_same_thread=False)
        self.lock = threading.Lock()

    def rows(self, statement, values=()):
        """The columns' names, and the rows."""
        with self.lock:
            cursor = self.connection.execute(statement, values)
            return [column[0] for column in cursor.description], cursor.fetchall()


def quoted(name):
    """A name as SQL has it."""
    return '"' + name.replace('"', '""') + '"'


class Row(vfsd.File):
    """A row. Its size is that of its JSON, so it is read to be shown."""

    direct = True

    def __init__(self, database, table, number):
        self.key = (database, table, number)

    def content(self):
        """The row as JSON."""
        database, table, number = self.key
        columns, rows = database.rows(f"SELECT * FROM {quoted(table)} WHERE rowid = ?", (number,))
        if not rows:
            raise FileNotFoundError(2, "the row is gone")
        return json.dumps(dict(zip(columns, rows[0])), indent=2, ensure_ascii=False, default=bytes.hex).encode() + b"\n"

    def attributes(self):
        return vfsd.Attributes(size=len(self.content()))

    def read(self, offset, size):
        return self.content()[offset:offset + size]


class Table(vfsd.Directory):
    """A table. Row 7 is the file 7.json."""

    def __init__(self, database, name):
        self.database = database
        self.name = name

    def lookup(self, name):
        number = name[:-len(".json")]
        if not name.endswith(".json") or str(_integer(number)) != number:
            return None
        found = self.database.rows(f"SELECT rowid FROM {quoted(self.name)} WHERE rowid = ?", (int(number),))[1]
        return Row(self.database, self.name, int(number)) if found else None

    def entries(self):
        _, rows = self.database.rows(f"SELECT rowid FROM {quoted(self.name)} ORDER BY rowid")
        return [(f"{number}.json", Row(self.database, self.name, number)) for number, in rows]


def _integer(word):
    try:
        return int(word)
    except ValueError:
        return None


class Tables(vfsd.Directory):
    """All tables whose names can be directories, and that have numbered rows."""

    def __init__(self, database):
        self.database = database

    def entries(self):
        _, rows = self.database.rows("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
        for name, in rows:
            try:
                self.database.rows(f"SELECT rowid FROM {quoted(name)} LIMIT 0")
            except sqlite3.OperationalError:
                continue
            if name not in ("", ".", "..") and "/" not in name and len(os.fsencode(name)) <= 255:
                yield name, Table(self.database, name)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: sqlite.py DATABASE [--socket PATH]")
    vfsd.serve(Tables(Database(sys.argv[1])))
