"""Errors a user can cause, and how a stage prints them: one clear sentence, exit status 1."""

import difflib
import errno
import functools
import os
import re
import sys
from pathlib import Path


NO_MEMORY = re.compile("can't allocate memory|out of memory", re.IGNORECASE)  # torch's words, on CPUs and GPUs


class UserError(Exception):
    """Something the user can put right. The message is one sentence naming the file or key at fault."""

    def __init__(self, message):
        super().__init__(" ".join(str(message).split()))


def nearest(word, choices):
    """'; did you mean "x"?' for the spelling in `choices` closest to `word`, or '' when none is close."""
    names = {str(choice).lower(): str(choice) for choice in choices}
    found = difflib.get_close_matches(str(word).lower(), names, n=1, cutoff=0.5)
    return f'; did you mean "{names[found[0]]}"?' if found else ""


def explain(error):
    """The sentence for an error a user can cause, or None for one that is a bug and deserves its traceback."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, MemoryError) or isinstance(error, RuntimeError) and NO_MEMORY.search(str(error)):
        return f"not enough memory ({str(error).partition(chr(10))[0]}): make the batch, the images or what is built of args smaller"
    if not isinstance(error, OSError):
        return None
    where = error.filename if error.filename is not None else "an output"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full: could not write {where}; free some space and run the same command again"
    if error.errno == errno.EFBIG:
        return (f"could not write {where}: the file system, or a limit on the size of files (`ulimit -f`), takes none as "
                f"large; use another, and run the same command again")
    if error.errno == errno.ENOENT and error.filename is not None:
        return f"no such file or folder: {where}{elsewhere(where) or nearest_path(where)}"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) and error.filename is not None:
        return f"no permission for {where}: {os.strerror(error.errno)}"
    return None


def nearest_path(path):
    """`nearest` among the names that lie beside where `path` should be."""
    folder, name = os.path.split(os.path.abspath(os.fsdecode(path)))
    return nearest(name, os.listdir(folder)) if os.path.isdir(folder) else ""


def elsewhere(path):
    """Where a path lies that was looked for here: in a folder above, or ''."""
    above = () if os.path.isabs(path) else Path.cwd().parents
    found = next((folder for folder in above if (folder / path).exists()), None)
    return f"; it is in {found}: run the command there" if found else ""


def refuse_conflict(path, text):
    """Raise UserError for the text of a file in which git has left both sides of a merge."""
    if re.search("^(<{7}|>{7}) ", text, re.MULTILINE):
        raise UserError(f"{path} has a merge conflict: take one side, `git checkout --ours {path}` or --theirs, and "
                        "run `make repro`, which renews it")


def main(run):
    """Wrap a script's main function: a user's error becomes one line on stderr and exit status 1."""

    @functools.wraps(run)
    def wrapped(*args, **kwargs):
        try:
            return run(*args, **kwargs)
        except (UserError, OSError, MemoryError, RuntimeError) as error:
            sentence = explain(error)
            if sentence is None:
                raise
            print(f"error: {sentence}", file=sys.stderr)
            sys.exit(1)

    return wrapped
