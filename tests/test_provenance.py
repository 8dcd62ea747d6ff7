"""What is said of where and when a training was made."""

import socket
import subprocess

import torch

from selfsup import provenance


def git(folder, *words):
    subprocess.run(["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b", *words], check=True, capture_output=True)


def test_the_commit_and_whether_the_library_was_edited(tmp_path):
    assert provenance.commit(tmp_path) is None
    for name in ("ssl/code.py", "data/results.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("1")
    git(tmp_path, "init")
    assert provenance.commit(tmp_path) is None, "no commit yet"
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "start")
    whole = provenance.commit(tmp_path)
    assert len(whole) == 40
    (tmp_path / "data/results.json").write_text("2")
    assert provenance.commit(tmp_path) == whole, "results change while an experiment runs"
    (tmp_path / "ssl/code.py").write_text("2")
    assert provenance.commit(tmp_path) == whole + "+"


def test_a_machine_is_named_by_its_kind_and_not_by_its_name():
    facts = provenance.facts(torch.device("cpu"))
    assert facts["machine"].partition(" × ")[2] and socket.gethostname() not in facts["machine"]
    assert facts["versions"].keys() >= {"python", "torch"}
