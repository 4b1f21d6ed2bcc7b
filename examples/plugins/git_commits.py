#!/usr/bin/env python3
"""The commits of a git repository as directories: git_commits.py REPOSITORY.

Listed are the latest 200 commits; any other is found by its hash, or by the name of a branch or tag: `ls /mnt/v1.0`.
"""

import functools
import os
import stat
import subprocess
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../plugins/python"))

import vfsd_plugin as vfsd  # noqa: E402  pylint: disable=wrong-import-position

LISTED = 200


class Repository:
    """A repository, asked through one git process for objects."""

    def __init__(self, path):
        self.git = ["git", "-C", path]
        self.lock = threading.Lock()
        self.objects = subprocess.Popen(
            self.git + ["cat-file", "--batch"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.read = functools.lru_cache(maxsize=256)(self._read)
        self.size = functools.lru_cache(maxsize=65536)(lambda name: len(self.read(name)))

    def _read(self, name):
        """The content of the object with a hash."""
        with self.lock:
            self.objects.stdin.write(name.encode() + b"\n")
            self.objects.stdin.flush()
            words = self.objects.stdout.readline().split()
            if len(words) != 3:
                raise FileNotFoundError(2, "no such object")
            content = self.objects.stdout.read(int(words[2]))
            self.objects.stdout.read(1)
            return content

    def commits(self):
        """Hashes and times of the latest commits."""
        log = self.git + ["log", f"--max-count={LISTED}", "--format=%H %ct"]
        lines = subprocess.run(log, stdout=subprocess.PIPE, check=True).stdout.decode().splitlines()
        return [(name, int(time)) for name, time in (line.split() for line in lines)]

    def commit(self, word):
        """Hash and time of a commit, if there is one that is called so."""
        show = self.git + ["log", "--max-count=1", "--format=%H %ct", "--end-of-options", word, "--"]
        found = subprocess.run(show, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
        words = found.stdout.decode().split()
        return (words[0], int(words[1])) if found.returncode == 0 and len(words) == 2 else None

    def tree_of(self, commit):
        """The hash of a commit's tree."""
        return self.read(commit).split(b"\n", 1)[0].split()[1].decode()


class Blob(vfsd.File):
    """A file of a commit, which never changes."""

    keep_cache = True

    def __init__(self, repository, name, mode, time):
        self.repository, self.name, self.mode, self.time = repository, name, mode, time

    def attributes(self):
        permissions = 0o555 if self.mode & 0o100 else 0o444
        return vfsd.Attributes(size=self.repository.size(self.name), permissions=permissions, modified=self.time)

    def read(self, offset, size):
        return self.repository.read(self.name)[offset:offset + size]


class Link(vfsd.Symlink):
    """A symbolic link of a commit."""

    def __init__(self, repository, name, time):
        self.target = lambda: os.fsdecode(repository.read(name))
        self.attributes = lambda: vfsd.Attributes(size=repository.size(name), modified=time)


class Folder(vfsd.Directory):
    """A directory of a commit."""

    def __init__(self, repository, name, time):
        self.repository, self.name, self.time = repository, name, time

    def attributes(self):
        return vfsd.Attributes(modified=self.time)

    def entries(self):
        tree = self.repository.read(self.name)
        hash_length = len(self.name) // 2
        while tree:
            head, _, tree = tree.partition(b"\0")
            mode, _, name = head.partition(b" ")
            mode, blob, tree = int(mode, 8), tree[:hash_length].hex(), tree[hash_length:]
            if stat.S_ISDIR(mode):
                yield os.fsdecode(name), Folder(self.repository, blob, self.time)
            elif stat.S_ISLNK(mode):
                yield os.fsdecode(name), Link(self.repository, blob, self.time)
            elif stat.S_ISREG(mode):
                yield os.fsdecode(name), Blob(self.repository, blob, mode, self.time)
            else:
                # A submodule: its commits are in another repository.
                yield os.fsdecode(name), vfsd.Tree(attributes=vfsd.Attributes(modified=self.time))


class Commits(vfsd.Directory):
    """All commits."""

    def __init__(self, repository):
        self.repository = repository

    def lookup(self, name):
        found = self.repository.commit(name)
        return found and Folder(self.repository, self.repository.tree_of(found[0]), found[1])

    def entries(self):
        for name, time in self.repository.commits():
            yield name, Folder(self.repository, self.repository.tree_of(name), time)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: git_commits.py REPOSITORY [--socket PATH]")
    vfsd.serve(Commits(Repository(sys.argv[1])))
