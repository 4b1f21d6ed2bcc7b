"""Makes what the rows of the guest bench work on, in /srv/bench of a new root.

Everything but the times is the same on every machine.
"""

import compileall
import os
import random
import subprocess

BENCH = "/srv/bench"
MIB = 1024 * 1024

# Kept by the names fio gives: the job's name and its number.
FIO_FILES = {"jobs1.0": 128, **{f"jobs4.{job}": 32 for job in range(4)}}
MODULES = 500
SOURCES = 10
REPOSITORY_FOLDERS = 100
FILES_PER_FOLDER = 30


def words(seed, count):
    """Text that compresses like text."""
    chosen = random.Random(seed)
    stock = [f"{syllable}{end}" for syllable in "kalo miru teso vani pelu".split() for end in "abcdefghij"]
    return " ".join(chosen.choice(stock) for _ in range(count))


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(text)


def fio_files():
    os.makedirs(f"{BENCH}/fio")
    block = random.Random(1).randbytes(MIB)
    for name, mebibytes in FIO_FILES.items():
        with open(f"{BENCH}/fio/{name}", "wb") as file:
            for _ in range(mebibytes):
                file.write(block)


def python_modules():
    """500 modules in 25 packages, compiled."""
    names = []
    for number in range(MODULES):
        package = f"package_{number % 25:02}"
        name = f"module_{number:03}"
        names.append(f"{package}.{name}")
        functions = "\n\n".join(
            f"def function_{index}(value):\n"
            f'    """{words(number * 100 + index, 12)}"""\n'
            f"    return [value + {index}, '{words(index, 4)}']\n"
            for index in range(20)
        )
        write(f"{BENCH}/python/{package}/{name}.py", functions)
        write(f"{BENCH}/python/{package}/__init__.py", "")
    write(f"{BENCH}/python/import_all.py", "".join(f"import {name}\n" for name in names))
    compileall.compile_dir(f"{BENCH}/python", quiet=1)


def c_program():
    """A program of many small sources that all read the usual headers."""
    usual = "".join(
        f"#include <{header}>\n"
        for header in "errno.h fcntl.h limits.h signal.h stdint.h stdio.h stdlib.h string.h sys/stat.h unistd.h".split()
    )
    declarations = "".join(f"int part_{number}(int value);\n" for number in range(SOURCES))
    write(f"{BENCH}/c/parts.h", declarations)
    for number in range(SOURCES):
        body = "".join(
            f'static int step_{step}(int value) {{ return value * {step + 3} + (int)strlen("{words(step, 5)}"); }}\n'
            for step in range(20)
        )
        calls = "".join(f"    value ^= step_{step}(value);\n" for step in range(20))
        write(
            f"{BENCH}/c/part_{number}.c",
            f'{usual}#include "parts.h"\n{body}int part_{number}(int value) {{\n{calls}    return value;\n}}\n',
        )
    calls = " + ".join(f"part_{number}(argc)" for number in range(SOURCES))
    write(f"{BENCH}/c/main.c", f'{usual}#include "parts.h"\nint main(int argc, char **argv) {{\n    return argv[0] == NULL || ({calls}) == 1;\n}}\n')


def git_repository():
    """3,000 files with a history of three commits, in one pack."""
    tree = f"{BENCH}/tree"
    environment = {
        **os.environ,
        "HOME": "/nonexistent",
        **{f"GIT_{who}_{what}": text for who in ("AUTHOR", "COMMITTER") for what, text in (
            ("NAME", "bench"), ("EMAIL", "bench@localhost"), ("DATE", "2025-01-01T00:00:00Z"))},
    }

    def git(*arguments):
        subprocess.run(["git", "-C", tree, *arguments], check=True, env=environment)

    os.makedirs(tree)
    git("init", "-q", "-b", "main")
    for round_number in range(3):
        for folder in range(REPOSITORY_FOLDERS):
            for number in range(FILES_PER_FOLDER):
                if number % 3 >= round_number:
                    seed = round_number * 10_000 + folder * 100 + number
                    write(f"{tree}/folder_{folder:02}/file_{number:02}.txt", words(seed, 100 + seed % 1500) + "\n")
        git("add", "-A")
        git("commit", "-q", "-m", f"round {round_number}")
    git("gc", "-q")
    os.rename(f"{tree}/.git", f"{BENCH}/repository.git")
    git_directory = ["--git-dir", f"{BENCH}/repository.git"]
    subprocess.run(["git", *git_directory, "config", "core.bare", "true"], check=True, env=environment)
    os.unlink(f"{BENCH}/repository.git/index")
    subprocess.run(["rm", "-r", tree], check=True)


fio_files()
python_modules()
c_program()
git_repository()
