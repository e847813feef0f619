"""The cache of packed images: which packs are trusted, and which are packed again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from picture_files import make_array, make_file, pictures, write_files

from smalti.data import load
from smalti.errors import DataError, OutputError


def entry(cache: Path) -> Path:
    (found,) = [path for path in (cache / "packed").iterdir() if not path.name.startswith(".")]
    return found


def run_script(script: str, *arguments: object) -> str:
    command = [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.strip()


@pytest.mark.skipif(sys.platform != "linux", reason="counts resident memory as Linux does")
def test_a_pass_over_a_large_pack_needs_little_memory(tmp_path: Path) -> None:
    script = """
        import resource, sys
        from pathlib import Path
        import numpy as np
        from smalti.data.cache import _map, _write_header
        from smalti.data.packed import Description, PackedImages
        path, shape = Path(sys.argv[1]), (1500, 512, 512, 1)
        with path.open("wb") as file:
            file.truncate(_write_header(file, shape) + int(np.prod(shape)))   # a hole: no disk is used
        images, rows = _map(path, shape)
        packed = PackedImages(images, None, Description("", None, (), (), [], None, "", ()), rows=rows)
        packed.batch(0, 0, 8)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for seen in range(0, 1500, 8):
            packed.batch(0, seen, 8)
        print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
    """
    assert int(run_script(script, tmp_path / "images.npy")) < 50  # MiB, of 375


@pytest.mark.skipif(not hasattr(os, "preadv"), reason="reads through the memory map")
def test_a_pack_that_is_cut_short_in_use_is_an_error_not_a_crash(tmp_path: Path, cache: Path) -> None:
    packed = load(write_files(tmp_path / "in", pictures(100)), cache=cache)
    os.truncate(entry(cache) / "images.npy", 5000)
    with pytest.raises(DataError, match="was cut short while it was in use"):
        packed.batch(0, 0, 100)


def test_an_unchanged_source_is_opened_not_packed(tmp_path: Path, cache: Path) -> None:
    folder = write_files(tmp_path / "in", pictures())
    calls: list[tuple[int, int | None]] = []
    first = load(folder, cache=cache, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (12, 12)
    calls.clear()
    second = load(folder, cache=cache, progress=lambda done, total: calls.append((done, total)))
    assert calls == []
    assert second.fingerprint == first.fingerprint
    assert list(second.names) == list(first.names)
    assert np.array_equal(second.images, first.images)


def test_the_default_split_and_its_name_share_one_pack(tmp_path: Path, cache: Path) -> None:
    folder = write_files(tmp_path / "in", pictures(6, prefix="train/") | pictures(4, prefix="test/"))
    load(folder, cache=cache, split="test")
    assert load(folder, cache=cache).split == "train"
    assert load(folder, cache=cache, split="train").split == "train"
    assert len(list((cache / "packed").iterdir())) == 2


@pytest.mark.parametrize("change", ["content", "add", "remove"])
def test_a_changed_source_is_packed_again(tmp_path: Path, cache: Path, change: str) -> None:
    folder = write_files(tmp_path / "in", pictures())
    before = load(folder, cache=cache)
    if change == "content":
        (folder / "cat/0.png").write_bytes(make_file(make_array(77)))
    elif change == "add":
        (folder / "cat/99.png").write_bytes(make_file(make_array(77)))
    else:
        (folder / "cat/0.png").unlink()
    after = load(folder, cache=cache)
    assert after.fingerprint != before.fingerprint
    assert len(after) == 12 + {"content": 0, "add": 1, "remove": -1}[change]
    assert len(list((cache / "packed").iterdir())) == 1
    assert before.batch(0, 0, 12).images.shape == (12, 8, 8, 3)  # the old one can still be read


@pytest.mark.parametrize("damage", ["cut", "longer", "json", "no labels", "no index", "version", "shape", "names"])
def test_a_damaged_pack_is_packed_again(tmp_path: Path, cache: Path, damage: str) -> None:
    folder = write_files(tmp_path / "in", pictures())
    before = load(folder, cache=cache)
    pack = entry(cache)
    index = json.loads((pack / "index.json").read_text())
    if damage in ("cut", "longer"):
        os.truncate(pack / "images.npy", (pack / "images.npy").stat().st_size + (1 if damage == "longer" else -1))
    elif damage == "json":
        (pack / "index.json").write_text(json.dumps(index)[:50])
    elif damage in ("no labels", "no index"):
        (pack / ("labels.npy" if damage == "no labels" else "index.json")).unlink()
    else:
        index |= {"version": {"format": 0}, "shape": {"shape": [3, 8, 8, 3]}, "names": {"names": ["a"]}}[damage]
        (pack / "index.json").write_text(json.dumps(index))
    after = load(folder, cache=cache)
    assert after.fingerprint == before.fingerprint
    assert after.labels is not None
    assert np.array_equal(after.images[:, 0, 0, 0], np.load(entry(cache) / "images.npy")[:, 0, 0, 0])


def test_a_pack_is_plain_numpy(tmp_path: Path, cache: Path) -> None:
    packed = load(write_files(tmp_path / "in", pictures()), cache=cache)
    assert np.array_equal(np.load(entry(cache) / "images.npy", mmap_mode="r"), packed.images)
    assert np.array_equal(np.load(entry(cache) / "labels.npy"), packed.labels)


def test_the_fingerprint_is_of_pixels_labels_and_classes_only(tmp_path: Path, cache: Path) -> None:
    files = pictures()
    base = load(write_files(tmp_path / "a", files), cache=cache).fingerprint
    renamed = {name.replace("/", "/picture"): data for name, data in files.items()}
    assert load(write_files(tmp_path / "b", renamed), cache=cache).fingerprint == base
    other_class = {name.replace("dog", "eel"): data for name, data in files.items()}
    assert load(write_files(tmp_path / "c", other_class), cache=cache).fingerprint != base
    flat = {name.split("/")[1]: data for name, data in files.items()}
    assert load(write_files(tmp_path / "d", flat), cache=cache).fingerprint != base
    assert load(tmp_path / "a", cache=cache, channels=1).fingerprint != base


KILLED = """
    import os, signal, sys
    from smalti.data import load
    def progress(done, total):
        if done == 150:
            os.kill(os.getpid(), signal.SIGKILL)
    load(sys.argv[1], cache=sys.argv[2], progress=progress)
"""


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_a_killed_packer_leaves_nothing_that_is_used(tmp_path: Path, cache: Path) -> None:
    folder = write_files(tmp_path / "in", pictures(200))
    with pytest.raises(subprocess.CalledProcessError) as caught:
        run_script(KILLED, folder, cache)
    assert caught.value.returncode == -signal.SIGKILL
    (left,) = (cache / "packed").iterdir()
    assert left.name.endswith(".partial")
    packed = load(folder, cache=cache)
    assert len(packed) == 200
    assert packed.images.any(axis=(1, 2, 3)).all()
    assert not left.exists()


def test_a_packer_at_work_is_left_alone(tmp_path: Path, cache: Path) -> None:
    folder = write_files(tmp_path / "in", pictures())
    mine = load(folder, cache=cache)
    assert mine is not None
    working = cache / "packed" / entry(cache).name
    other = working.with_name(f".{working.name}.{os.uname().nodename}.{os.getpid()}.abcd.partial")
    other.mkdir()
    load(folder, cache=cache, channels=1)
    assert other.exists()
    os.utime(other, (0, 0))  # untouched since 1970: nobody is at work there
    load(folder, cache=cache, channels=4)
    assert not other.exists()


def test_packers_at_the_same_time_do_not_hurt_each_other(tmp_path: Path, cache: Path) -> None:
    folder = write_files(tmp_path / "in", pictures(150))
    script = "import sys; from smalti.data import load; print(load(sys.argv[1], cache=sys.argv[2]).fingerprint)"
    command = [sys.executable, "-c", script, str(folder), str(cache)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    found = {process.communicate(timeout=60)[0].strip() for process in running}
    assert [process.returncode for process in running] == [0, 0, 0]
    assert found == {load(folder, cache=cache).fingerprint}
    assert [path.name for path in (cache / "packed").iterdir()] == [entry(cache).name]


def test_a_cache_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "in", pictures())
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(OutputError, match=r"cannot write packed images to .*file.*`cache=FOLDER`") as caught:
        load(folder, cache=blocked)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_cache_without_permission_is_one_line(tmp_path: Path, cache: Path) -> None:
    folder = write_files(tmp_path / "in", pictures())
    cache.mkdir(mode=0o500)
    with pytest.raises(OutputError, match="Permission denied"):
        load(folder, cache=cache)


@pytest.mark.skipif(os.name == "nt", reason="needs RLIMIT_FSIZE")
def test_a_write_that_fails_in_the_middle_is_one_line_and_leaves_nothing(tmp_path: Path, cache: Path) -> None:
    folder = write_files(tmp_path / "in", pictures(200))
    script = """
        import resource, sys
        from smalti.data import load
        from smalti.errors import DataError, OutputError
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        try:
            load(sys.argv[1], cache=sys.argv[2])
        except OutputError as error:
            print(error)
    """
    said = run_script(script, folder, cache)
    assert "File too large" in said
    assert "\n" not in said
    assert list((cache / "packed").iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a tmpfs")
def test_a_full_disk_is_one_line_that_says_how_much_is_needed(tmp_path: Path, cache: Path) -> None:
    folder = write_files(tmp_path / "in", pictures(40))
    cache.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(cache)]
    try:
        mounted = subprocess.run(mount, capture_output=True).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("mounting is not allowed here")
    try:
        with pytest.raises(OutputError, match=r"No space left.*need 7\.9 MB.*`cache=FOLDER`"):
            load(folder, cache=cache, size=256)
        (cache / "fill").write_bytes(bytes(250_000))
        with pytest.raises(OutputError, match="No space left"):  # the room runs out while writing
            load(folder, cache=cache, size=8)
    finally:
        subprocess.run(["umount", str(cache)], check=True)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 12), st.integers(0, 3))
def test_any_number_of_images_packs_and_shows_each_once(
    tmp_path_factory: pytest.TempPathFactory, count: int, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("few")
    write_files(folder / "in", {f"{i}.png": make_file(make_array(i, height=2, width=2)) for i in range(count)})
    packed = load(folder / "in", cache=folder / "cache")
    assert len(packed) == count
    assert packed.labels is None
    assert packed.shape == (3, 2, 2)
    assert sorted(packed.batch(seed, 0, count).indices.tolist()) == list(range(count))
