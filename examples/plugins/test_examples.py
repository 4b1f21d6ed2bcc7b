"""Tests of the examples: with pytest, or by running this file."""

import io
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import zipfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "../../plugins/python")]

# pylint: disable=wrong-import-position
import archive  # noqa: E402
import git_commits  # noqa: E402
import sqlite  # noqa: E402
import test_vfsd_plugin  # noqa: E402
from test_vfsd_plugin import Host  # noqa: E402

LONG = os.urandom(100_000)


def names(host, node):
    return [name for name, _, _ in host.list(node, plus=True)][2:]


def look_up(host, path):
    node = 1
    for name in path.split("/"):
        node = host.lookup(node, name)
    return node


def check_archive(path):
    host = Host(archive.tree(path))
    assert names(host, 1) == ["empty", "long", "short"]
    assert names(host, host.lookup(1, "empty")) == []
    assert names(host, host.lookup(1, "long")) == ["data"]
    data = look_up(host, "long/data")
    assert host.read(data) == LONG
    assert host.read(data, 70_000, 20_000) == LONG[70_000:90_000]
    assert host.read(data, 5, 20_000) == LONG[5:20_005]
    assert host.read(data, 99_990) == LONG[99_990:]
    assert host.read(host.lookup(1, "short")) == b"text"
    host.close()


def test_archives_of_all_kinds_are_directories():
    with tempfile.TemporaryDirectory() as folder:
        for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            path = os.path.join(folder, "archive.zip")
            with zipfile.ZipFile(path, "w", compression) as made:
                made.writestr("long/data", LONG)
                made.writestr("short", "text")
                made.writestr("empty/", "")
                made.writestr("../outside", "never seen")
            check_archive(path)
        for mode in ("w", "w:gz", "w:xz"):
            path = os.path.join(folder, "archive.tar")
            with tarfile.open(path, mode) as made:
                for name, content in (("long/data", LONG), ("./short", b"text"), ("../outside", b"never seen")):
                    info = tarfile.TarInfo(name)
                    info.size = len(content)
                    made.addfile(info, io.BytesIO(content))
                info = tarfile.TarInfo("empty")
                info.type = tarfile.DIRTYPE
                made.addfile(info)
            check_archive(path)


def test_rows_are_files():
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "a database?.sqlite")
        connection = sqlite3.connect(path)
        connection.execute('CREATE TABLE "odd ""name" (key TEXT, value BLOB)')
        connection.execute("CREATE TABLE plain (key TEXT PRIMARY KEY) WITHOUT ROWID")
        connection.execute('INSERT INTO "odd ""name" VALUES (?, ?)', ("colour", b"\xff"))
        connection.commit()
        host = Host(sqlite.Tables(sqlite.Database(path)))
        assert names(host, 1) == ['odd "name']
        table = host.lookup(1, 'odd "name')
        assert names(host, table) == ["1.json"]
        row = json.loads(host.read(host.lookup(table, "1.json")))
        assert row == {"key": "colour", "value": "ff"}
        for name in ("2.json", "01.json", "x.json", "1"):
            test_vfsd_plugin.refused(2, host.lookup, table, name)
        connection.execute('INSERT INTO "odd ""name" VALUES (?, ?)', ("size", 2))
        connection.commit()
        assert names(host, table) == ["1.json", "2.json"]
        connection.close()
        host.close()


def test_commits_are_directories():
    if shutil.which("git") is None:
        print("(skipped: no git)")
        return
    with tempfile.TemporaryDirectory() as folder:
        def git(*words):
            who = ["-c", "user.name=Test", "-c", "user.email=test@example.com"]
            subprocess.run(["git", "-C", folder, *who, *words], check=True, stdout=subprocess.DEVNULL)

        git("init", "--quiet")
        os.mkdir(os.path.join(folder, "sub"))
        for content in ("first", "second"):
            with open(os.path.join(folder, "sub/file"), "w", encoding="utf-8") as file:
                file.write(content)
            git("add", ".")
            git("commit", "--quiet", "-m", content)
        os.symlink("sub/file", os.path.join(folder, "link"))
        git("add", ".")
        git("commit", "--quiet", "-m", "third")
        host = Host(git_commits.Commits(git_commits.Repository(folder)))
        commits = names(host, 1)
        assert len(commits) == 3
        assert names(host, host.lookup(1, commits[0])) == ["link", "sub"]
        assert host.ask(5, look_up(host, commits[0] + "/link")) == b"sub/file"
        assert host.read(look_up(host, commits[1] + "/sub/file")) == b"second"
        assert host.read(look_up(host, commits[2] + "/sub/file")) == b"first"
        assert host.read(look_up(host, "HEAD~2/sub/file")) == b"first"
        for name in ("nothing", "--all", "--output=x"):
            test_vfsd_plugin.refused(2, host.lookup, 1, name)
        host.close()


if __name__ == "__main__":
    test_vfsd_plugin.main(globals())
