"""Whatever is raised becomes one sentence with the true cause, and a log file where only a traceback tells."""

import errno
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic_settings import BaseSettings

from backend.commands import Saevx
from precompute.cli import CLI_CONFIG, run
from precompute.errors import PlaceError, SaevxError, Terminated
from precompute.utils.failures import sentence, sentence_of_cause, without_secrets, write_log
from tests.helpers.machine import environment, refused, saevx, small_disk
from tests.helpers.tiny_demo import tiny_demo


def os_error(number: int, path: object = None) -> OSError:
    return OSError(number, os.strerror(number), *([str(path)] if path else []))


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, ["No space is left in", "make room and run the same command again"]),
        (errno.EDQUOT, ["quota of disk space", "make room"]),
        (errno.EFBIG, ["ulimit -f"]),
        (errno.EROFS, ["can only be read: choose another place"]),
        (errno.EACCES, ["This user may not write"]),
        (errno.EPERM, ["This user may not write"]),
        (errno.ENOENT, ["There is no file or folder"]),
        (errno.ENOTDIR, ["through a file"]),
        (errno.EISDIR, ["is a folder where a file is expected"]),
        (errno.EEXIST, ["is a file where a folder is needed"]),
        (errno.ENAMETOOLONG, ["too long for this file system: choose a shorter one"]),
        (errno.ELOOP, ["in a circle"]),
        (errno.EMFILE, ["ulimit -n"]),
        (errno.EIO, ["The disk reports an error"]),
        (errno.ENOMEM, ["memory is too small"]),
        (errno.ENOTEMPTY, ["is not empty"]),
    ],
)
def test_every_kind_of_file_system_error_has_its_sentence(tmp_path: Path, number: int, words: list[str]) -> None:
    text = sentence(os_error(number, tmp_path / "out"))
    assert text is not None and all(word in text for word in words), text
    assert text.endswith(".") and "Errno" not in text and "\n" not in text
    if number not in (errno.ENOMEM, errno.EMFILE):
        assert str(tmp_path) in text or "out" in text
    assert sentence(os_error(number), tmp_path / "out") is not None, "the place is the command's, where none is named"


def test_what_is_no_error_of_the_machine_has_no_sentence() -> None:
    for error in (KeyError("x"), RuntimeError("a hook was not called"), OSError("no file named model.safetensors")):
        assert sentence(error) is None


def full(call: Any, folder: Path) -> BaseException:
    """What `call` raises on a disk without room."""
    with small_disk(folder) as resize:
        disk = resize("8k")
        (disk / "ballast").write_bytes(bytes(4096))
        with pytest.raises(Exception) as caught:
            call(disk)
        text = sentence(caught.value, disk / "out")
        assert text is not None and f"No space is left in {disk}" in text, (caught.value, text)
        return caught.value


def test_libraries_that_have_their_own_words_for_a_full_disk(tmp_path: Path) -> None:
    import faiss
    from PIL import Image
    from safetensors.torch import save_file

    from precompute.steps.index import write_index

    def sqlite(disk: Path) -> None:
        with sqlite3.connect(disk / "base") as base:
            base.execute("CREATE TABLE t (x)")
            base.executemany("INSERT INTO t VALUES (?)", [("x" * 1000,)] * 100)

    large = np.ones((200, 64), np.float32)
    for i, call in enumerate(
        [
            sqlite,
            lambda disk: np.save(disk / "a.npy", large),
            lambda disk: np.savez(disk / "a.npz", large=large),
            lambda disk: torch.save({"large": torch.ones(20_000)}, disk / "a.pt"),
            lambda disk: save_file({"large": torch.ones(20_000)}, disk / "a.safetensors"),
            lambda disk: Image.effect_noise((200, 200), 90).save(disk / "a.png"),
            lambda disk: write_index(large, disk / "a.faiss"),
        ]
    ):
        full(call, tmp_path / f"disk{i}")
    write_index(large, tmp_path / "a.faiss")
    assert faiss.read_index(str(tmp_path / "a.faiss")).ntotal == 200


def test_an_error_made_of_another_is_told_by_the_other(tmp_path: Path) -> None:
    def chained(cause: BaseException, error: type[Exception] = SaevxError) -> Any:
        made = error("The SAE x cannot be loaded: give another.")
        made.__cause__ = cause
        return made

    text = sentence_of_cause(chained(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")), {"dtype"})
    assert text == "The GPU's memory is too small for this: choose a smaller --dtype (bfloat16)."
    assert "No space" in str(sentence_of_cause(chained(chained(os_error(errno.ENOSPC, tmp_path / "x"), ValueError))))
    assert sentence_of_cause(chained(ValueError("a bad header"))) is None
    assert sentence_of_cause(chained(os_error(errno.ENOSPC), PlaceError)) is None, "that has the true cause already"


@pytest.mark.parametrize("command", ["verify", "migrate --out out"])
def test_a_name_that_is_too_long_is_one_sentence(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    name, *options = command.split()
    assert run(Saevx, [name, "x" * 5000 + "/store", *options]) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "File name too long" in err and not list(tmp_path.iterdir())
    assert "xxx…x" in err and len(err) < 600


@pytest.mark.parametrize(
    ("error", "gpu"),
    [
        (MemoryError(), False),
        (np._core._exceptions._ArrayMemoryError((10**9,), np.dtype(np.float64)), False),  # type: ignore[attr-defined]
        (RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"), False),
        (RuntimeError("std::bad_alloc"), False),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9.05 GB)"), True),
    ],
)
def test_too_little_memory_says_what_to_lower(error: Exception, gpu: bool) -> None:
    text = str(sentence(error, options={"batch_tokens", "dtype", "device", "seed"}))
    assert text.startswith("The GPU's memory" if gpu else "This machine's memory")
    assert text.endswith("lower --batch-tokens, choose a smaller --dtype (bfloat16) or choose another --device.")
    assert str(sentence(error)).endswith("end other programs or take a machine with more.")


# ---- the command


class Failing(BaseSettings):
    """A command that fails as it is told."""

    model_config = CLI_CONFIG
    batch_tokens: int = 1

    def cli_cmd(self) -> None:
        raise ERRORS[self.batch_tokens]


SECRET = "5f2c-very-secret"
ERRORS: list[BaseException] = [
    KeyError("foo\nbar"),
    ValueError(f"the server at https://me:{SECRET}@example.org/?api_key={SECRET} says no to hf_{'a' * 20}"),
    SaevxError("A sentence: do this."),
    KeyboardInterrupt(),
    Terminated(),
    MemoryError(),
    OSError(errno.ENOSPC, "No space left on device", "/somewhere/else"),
    BrokenPipeError(),
]


def test_whatever_comes_is_one_sentence(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("SAEVX_LABELLER_KEY", SECRET)
    message = []
    for number in range(len(ERRORS)):
        status = run(Failing, ["--batch-tokens", str(number)])
        message.append((status, capsys.readouterr().err))
    assert [status for status, _ in message] == [1, 1, 1, 130, 143, 1, 1, 0]
    assert all(err.count("\n") == (status != 0) and "Traceback" not in err for status, err in message)
    first = r"saevx: The command failed \(KeyError: 'foo\\nbar'\)\. The details are in (.*)\.\n"
    result = re.fullmatch(first, message[0][1])
    assert result is not None
    details = Path(result[1]).read_text()
    assert all(word in details for word in ("KeyError", "Traceback", "--batch-tokens 0", "torch "))
    assert SECRET not in message[1][1]
    assert message[2][1] == "saevx: A sentence: do this.\n" and message[3][1] == "saevx: interrupted\n"
    assert message[4][1] == "saevx: terminated\n" and "memory is too small" in message[5][1]
    assert "No space is left" in message[6][1]
    logs = sorted((tmp_path / "state" / "saevx").iterdir())
    assert logs and all(SECRET not in log.read_text() and "hf_aaa" not in log.read_text() for log in logs)


def test_a_file_of_another_store_is_named(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the size that the manifest says, so that only what follows from its values tells."""
    demo = tiny_demo(tmp_path_factory)
    shutil.copytree(demo / "store", store := tmp_path / "store")
    places = np.load(store / "events/max_offset.npy")
    np.save(store / "events/max_offset.npy", places[::-1].copy())
    options = ["--model", str(demo / "model"), f"--store={store}", "--max-samples", "2", "--device", "cpu"]
    assert run(Saevx, ["evaluate", str(demo / "sae"), str(demo / "data"), *options]) == 1
    sentence_line = capsys.readouterr().err.splitlines()[-1]
    assert sentence_line.startswith(f"saevx: The store {store} is damaged (events/max_offset.npy is not the file that")


def test_secrets_stay_out_of_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "abcdef123456")
    text = without_secrets("Bearer xyz123 http://u:p@h/v1 ?token=abc&x=1 abcdef123456 sk-0123456789abc /home/me/keys")
    assert text == "Bearer *** http://***@h/v1 ?token=***&x=1 *** sk-*** /home/me/keys"


def test_a_log_is_written_where_it_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "other"))
    log = write_log(ValueError("x"), ["verify"])
    assert log is not None and log.parent == tmp_path / "other"
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "file"))
    assert write_log(ValueError("x"), ["verify"]) is None


def test_old_logs_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    (tmp_path / "saevx").mkdir()
    for n in range(60):
        (tmp_path / "saevx" / f"saevx-20200101-0000{n:02d}-1.log").touch()
    log = write_log(ValueError("x"), [])
    assert log in (left := sorted((tmp_path / "saevx").iterdir())) and len(left) == 50


def test_output_that_cannot_be_written(tmp_path: Path) -> None:
    """A full disk behind `>`; a reader of a pipe that leaves is no failure."""
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    code = """
import sys
from pydantic_settings import BaseSettings
from precompute.cli import CLI_CONFIG, run
class Talking(BaseSettings):
    model_config = CLI_CONFIG
    def cli_cmd(self):
        for n in range(100_000):
            print("line", n)
sys.exit(run(Talking, []))
"""
    for target, status, word in ((">/dev/full", 1, "No space is left where the output goes"), ("| head -1", 0, "")):
        command = f'set -o pipefail; "$0" -c "$1" {target}'
        done = subprocess.run(
            ["bash", "-c", command, sys.executable, code], capture_output=True, text=True, env=environment()
        )
        assert done.returncode == status and word in done.stderr, done.stderr
        assert done.stderr.count("\n") == status and "Traceback" not in done.stderr and "ignored" not in done.stderr


def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "store.sqlite").touch()
    (tmp_path / "store" / "manifest.json").mkdir()
    done = saevx("verify", tmp_path / "store", XDG_STATE_HOME=str(tmp_path))
    refused(done)
