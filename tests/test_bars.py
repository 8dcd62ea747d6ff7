"""Bars: in a terminal one that moves, in a log a line now and then."""

import os
import pty
import sys
import termios

from selfsup.core import bars


def test_in_a_log_it_is_lines(capsys, monkeypatch):
    monkeypatch.setattr(bars, "EVERY", (1, 0))
    assert list(bars.bar(range(3), "training", 3)) == [0, 1, 2]
    said = capsys.readouterr().err
    assert "\r" not in said and said.endswith("\n")
    assert [*dict.fromkeys(line.split("%")[0] for line in said.splitlines())] == [f"training: {n:3}" for n in (0, 33, 67, 100)]


def test_a_log_has_no_more_than_a_line_in_30_seconds(capsys):
    list(bars.bar(range(1000), "training", 1000))
    assert [line.split("%")[0] for line in capsys.readouterr().err.splitlines()] == ["training:   0", "training: 100"]  # begin and end


def test_in_a_terminal_it_moves(monkeypatch):
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    with open(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        list(bars.bar(range(3), "training", 3))
        said = b""
        while b"\rtraining: 100%" not in said:
            said += os.read(ours, 10_000)
    os.close(ours)
    assert b"\rtraining:   0%" in said
