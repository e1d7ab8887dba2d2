"""Keys are made once, whole, and for one pair of eyes."""

import threading
from pathlib import Path

import pytest

from whygate.stores.keys import KEY_BYTES, Keys, KeysRefused, load_or_create


def test_keys_stay_the_same(tmp_path: Path) -> None:
    """A restart reads the keys of the first start: trace ids and digests stay comparable."""
    first = load_or_create(tmp_path / "keys")
    assert load_or_create(tmp_path / "keys") == first
    assert len(first.trace) == len(first.digest) == KEY_BYTES
    assert first.trace != first.digest


def test_only_the_owner_can_read_them(tmp_path: Path) -> None:
    """Files 0600 in a folder 0700, and no draft is left behind."""
    load_or_create(tmp_path / "keys")
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700
    assert {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "keys").iterdir()} == {
        "trace.key": 0o600,
        "digest.key": 0o600,
        "payload.key": 0o600,
    }


@pytest.mark.parametrize(("name", "mode"), [("trace.key", 0o640), ("digest.key", 0o604), (".", 0o750)])
def test_keys_that_others_can_read_are_refused(tmp_path: Path, name: str, mode: int) -> None:
    """The message says which file, and what to do about it."""
    load_or_create(tmp_path / "keys")
    (tmp_path / "keys" / name).chmod(mode)
    with pytest.raises(KeysRefused, match=r"can be used by others.*chmod"):
        load_or_create(tmp_path / "keys")


@pytest.mark.parametrize("text", ["", "00", "zz" * 32, "00" * 33, "ключ"])
def test_a_file_that_is_no_key_is_refused(tmp_path: Path, text: str) -> None:
    """A damaged key is never replaced in silence: everything made with it would come out different."""
    load_or_create(tmp_path / "keys")
    (tmp_path / "keys" / "trace.key").write_text(text)
    with pytest.raises(KeysRefused, match="is no key"):
        load_or_create(tmp_path / "keys")
    assert (tmp_path / "keys" / "trace.key").read_text() == text


def test_many_that_start_at_once_agree(tmp_path: Path) -> None:
    """Whoever comes second uses the first one's keys."""
    found: list[Keys] = []
    gate = threading.Barrier(8)

    def start() -> None:
        gate.wait()
        found.append(load_or_create(tmp_path / "keys"))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len({each.trace for each in found}) == 1


def test_a_draft_left_by_a_crash_is_no_key(tmp_path: Path) -> None:
    """Dying while a key is made leaves no half of one in its place."""
    folder = tmp_path / "keys"
    folder.mkdir(0o700)
    (folder / ".trace.key.0123").write_text("00")
    (folder / ".trace.key.0123").chmod(0o600)
    assert len(load_or_create(folder).trace) == KEY_BYTES


def test_keys_are_not_printed(tmp_path: Path) -> None:
    """What lands in a log tells one key from another, and nothing else."""
    keys = load_or_create(tmp_path / "keys")
    shown = repr(keys) + str(keys) + str(keys.fingerprints())
    assert keys.trace.hex()[:8] not in shown
    assert repr(keys.trace)[2:10] not in shown
    assert load_or_create(tmp_path / "other").fingerprints() != keys.fingerprints()
