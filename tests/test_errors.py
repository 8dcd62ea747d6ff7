import errno
import os
import pytest

from selfsup.errors import UserError, main, nearest


def test_nearest():
    assert nearest("simclt", ["moco", "SimCLR"]) == '; did you mean "SimCLR"?'
    assert nearest("xyz", ["moco", "simclr"]) == ""


@pytest.mark.parametrize("error, words", [
    (UserError("key\n  lr is wrong"), "key lr is wrong"),
    (OSError(errno.ENOSPC, "No space left on device", "a.tar"), "the disk is full: could not write a.tar"),
    (OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
    (MemoryError("Unable to allocate 9 EiB"), "not enough memory (Unable to allocate 9 EiB)"),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.\nTrace:"), "not enough memory"),
    (RuntimeError("CUDA out of memory. Tried to allocate"), "not enough memory"),
])
def test_main_prints_one_line(error, words, capsys):
    @main
    def run():
        raise error

    with pytest.raises(SystemExit) as stop:
        run()
    text = capsys.readouterr().err
    assert stop.value.code == 1 and words in text and text.count("\n") == 1


def test_missing_file_names_the_nearest(tmp_path, capsys):
    (tmp_path / "params.yaml").write_text("")
    with pytest.raises(SystemExit):
        main(open)(os.path.join(tmp_path, "parms.yaml"))
    assert 'did you mean "params.yaml"' in capsys.readouterr().err


def test_bugs_keep_their_traceback():
    @main
    def run():
        return 1 / 0

    with pytest.raises(ZeroDivisionError):
        run()

    @main
    def other():
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError):
        other()
