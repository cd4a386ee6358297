"""The one writer: links are followed, pipes are not replaced, nobody meets a half-written file, leftovers go."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

import headstart as hs
from headstart.io import DataError, read_dataset
from headstart.io.output import clipped_share, require_alone, sample_names, staged, to_bytes, write, write_samples
from headstart.io.workspace import PREFIX

PIXELS = np.arange(4 * 6 * 6, dtype=np.uint8).reshape(4, 6, 6, 1)
STOPPED = """
import os, signal, sys
from pathlib import Path
from headstart.io.output import staged, write

def save(path):
    path.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)

os.chdir(sys.argv[2])
if sys.argv[1] == "file":
    write(Path("a.txt"), save)
with staged(Path("out")) as folder:
    save(folder / "a.txt")
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def put(path: object, text: str = "new") -> None:
    write(path, lambda temporary: temporary.write_text(text))  # type: ignore[arg-type]


def stage(out: Path, files: list[str]) -> None:
    with staged(out) as folder:
        for name in files:
            (folder / name).write_text("new")


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "big").mkdir()
    (tmp_path / "big" / "real.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to("big/real.txt")
    (tmp_path / "ahead.txt").symlink_to("big/later.txt")
    for name in ("link.txt", "ahead.txt"):
        put(tmp_path / name)
        assert (tmp_path / name).is_symlink()
        assert (tmp_path / name).read_text() == "new"
    assert names(tmp_path / "big") == ["later.txt", "real.txt"]
    (tmp_path / "out").symlink_to("big")
    write_samples(tmp_path / "out", PIXELS, seed=0)
    assert (tmp_path / "out").is_symlink()
    assert "grid.png" in names(tmp_path / "big")


@pytest.mark.parametrize("linked", [False, True])
def test_into_a_pipe_the_whole_content_is_poured(tmp_path: Path, linked: bool) -> None:
    pipe = tmp_path / "pipe.safetensors"
    os.mkfifo(pipe)
    path = tmp_path / "link.safetensors"
    path.symlink_to(pipe)
    law = hs.fit(torch.randn(60, 2), components=1, max_iter=2)
    law.save(tmp_path / "file.safetensors")
    with pytest.raises(OSError, match="that nobody reads") as caught:  # an error, and no waiting for ever
        law.save(path if linked else pipe)
    assert caught.value.errno == errno.ENXIO
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    law.save(path if linked else pipe)  # small enough for the pipe's own memory
    assert os.read(reader, 2**16) == (tmp_path / "file.safetensors").read_bytes()
    os.close(reader)
    assert stat.S_ISFIFO(pipe.lstat().st_mode)
    assert path.is_symlink()


def test_devices_stay_devices(tmp_path: Path) -> None:
    (tmp_path / "nothing").symlink_to("/dev/null")
    put(tmp_path / "nothing")
    assert stat.S_ISCHR((tmp_path / "nothing").stat().st_mode)
    (tmp_path / "full").symlink_to("/dev/full")
    with pytest.raises(OSError, match="full") as caught:
        put(tmp_path / "full")
    assert caught.value.errno == errno.ENOSPC
    assert names(tmp_path) == ["full", "nothing"]


def test_a_folder_is_not_replaced(tmp_path: Path) -> None:
    for path in (tmp_path, ""):
        with pytest.raises(IsADirectoryError):
            put(path)
    with pytest.raises(OSError, match="too long"):
        put(tmp_path / ("x" * 300))
    (tmp_path / "file").write_text("a file")
    with pytest.raises(NotADirectoryError):
        put(tmp_path / "file" / "inside")
    assert names(tmp_path) == ["file"]


def test_home_bytes_and_other_alphabets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    law = hs.fit(torch.randn(60, 2), components=1, max_iter=2)
    for path in ("~/a.safetensors", Path("~/b.safetensors"), b"c.safetensors", "bücher/スタート 1.safetensors", "none"):
        law.save(path)  # type: ignore[arg-type]
        assert hs.load(path).shape == (2,)  # type: ignore[arg-type]
    assert names(tmp_path / "home") == ["a.safetensors", "b.safetensors"]
    assert not (tmp_path / "~").exists()
    write_samples(Path("~/out"), PIXELS, seed=0)
    assert len(read_dataset("~/out").images) == 4


def test_threads_write_one_path(tmp_path: Path) -> None:
    failed: list[BaseException] = []
    begin = threading.Barrier(4)

    def work(index: int) -> None:
        try:
            begin.wait()
            for _ in range(20):
                put(tmp_path / "a.txt", str(index) * 100_000)
                text = (tmp_path / "a.txt").read_text()
                assert len(text) == 100_000
                assert len(set(text)) == 1
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert names(tmp_path) == ["a.txt"]


def test_the_umask_is_never_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It belongs to the whole process: for as long as it is another, other threads' files are as open as it says."""

    def touched(mask: int) -> int:
        raise AssertionError("the umask was set")

    before = os.umask(0o027)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(os, "umask", touched)
            put(tmp_path / "a.txt")
            write_samples(tmp_path / "out", PIXELS, seed=0)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o750
    (tmp_path / "a.txt").chmod(0o600)
    put(tmp_path / "a.txt")
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o600  # a private file stays private


def test_names_on_the_way_cannot_be_guessed(tmp_path: Path) -> None:
    seen: list[Path] = []

    def save(path: Path) -> None:
        seen.append(path)
        assert path.parent.parent == tmp_path
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        path.write_text("new")

    for _ in range(2):
        write(tmp_path / "a.txt", save)
    assert seen[0].parent != seen[1].parent
    assert all(str(os.getpid()) not in path.parent.name for path in seen)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_leftovers_of_a_kill_go_with_the_next_run(tmp_path: Path, kind: str) -> None:
    for _ in range(2):
        found = subprocess.run([sys.executable, "-c", STOPPED, kind, str(tmp_path)], check=False)
        assert found.returncode == -signal.SIGKILL
        assert len(names(tmp_path)) == 1  # the second removed what the first had left
        assert names(tmp_path)[0].startswith(PREFIX)
    put(tmp_path / "b.txt")
    assert names(tmp_path) == ["b.txt"]


def test_a_workspace_in_use_is_no_leftover(tmp_path: Path) -> None:
    with staged(tmp_path / "out") as folder:
        (folder / "a.txt").write_text("kept")
        put(tmp_path / "b.txt")
        assert (folder / "a.txt").exists()
    assert names(tmp_path / "out") == ["a.txt"]


def test_a_folder_that_cannot_take_all_files_takes_none(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_samples(out, PIXELS, seed=0)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    (out / "z.png").mkdir()
    with pytest.raises(IsADirectoryError, match=r"z\.png"):
        stage(out, [*before, "new.png", "z.png"])
    (out / "z.png").rmdir()
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_where_going_back_fails_the_error_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.txt").write_text("old")
    move, moved = os.rename, []

    def stop(source: Path, target: Path) -> None:
        moved.append(target)
        if len(moved) > 2:
            raise OSError(errno.EIO, "Input/output error", str(source))
        move(source, target)

    monkeypatch.setattr(os, "rename", stop)
    with pytest.raises(OSError, match="holds files of this run and of the one before") as caught:
        stage(out, ["a.txt", "b.txt"])
    assert caught.value.filename == str(out)


def test_errors_name_the_file_and_not_the_workspace(tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        path.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with pytest.raises(OSError, match=r"a\.txt") as caught:
        write(tmp_path / "a.txt", fail)
    assert caught.value.filename == str(tmp_path / "a.txt")
    assert names(tmp_path) == []


def test_samples_of_another_run_are_not_joined(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_samples(out, PIXELS, seed=0)
    (out / "notes.txt").write_text("of the user")
    write_samples(out, PIXELS[::-1], seed=0)  # the same names: all are replaced
    assert torch.equal(read_dataset(out).images[0], torch.from_numpy(PIXELS[3, ..., 0])[None].float() / 127.5 - 1)
    before = names(out)
    for n, seed in ((2, 0), (4, 1)):
        with pytest.raises(DataError, match=r"out: holds samples of another run \(seed0-00000.\.png and . more\)"):
            write_samples(out, PIXELS[:n], seed=seed)
    assert names(out) == before
    for name in ("deep/a.png", "a.npy", "dataset.json", "sub/samples.npz"):
        other = tmp_path / name.replace("/", "-")
        (other / name).parent.mkdir(parents=True)
        (other / name).write_bytes(b"")
        with pytest.raises(DataError, match="another run"):
            require_alone(other, sample_names(4, 0))


def test_values_that_a_picture_cannot_hold_are_beside_it(tmp_path: Path) -> None:
    x = torch.randn(3, 1, 6, 6) * 2
    write_samples(tmp_path / "out", to_bytes(x), seed=0, values=x)
    assert torch.equal(read_dataset(tmp_path / "out" / "samples.safetensors").images, x)
    assert len(read_dataset(tmp_path / "out").images) == 3  # the file of floats is no picture more
    assert clipped_share(torch.tensor([-1.0, 1.003, 0.0, 1.005])) == 0.25  # half a grey level is rounding
    assert clipped_share(torch.tensor([2.0, -3.0])) == 1
    with pytest.raises(DataError, match=r"samples\.safetensors of another run"):
        write_samples(tmp_path / "out", to_bytes(x), seed=0)
