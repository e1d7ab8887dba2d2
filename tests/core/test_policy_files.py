"""Reading a folder of policies: what is there is read, or told."""

import os
from pathlib import Path

import pytest

from whygate import policy_files
from whygate.core.policy.errors import PolicyErrors
from whygate.policy_files import read_folder


def told(folder: Path) -> list[str]:
    with pytest.raises(PolicyErrors) as wrong:
        read_folder(folder)
    return [f"{error.file}: {error.message}" for error in wrong.value.errors]


def test_all_policies_are_read_by_name(tmp_path: Path) -> None:
    """Every .yaml and .yml file, also in folders below, by its relative name, in order; nothing else."""
    (tmp_path / "b").mkdir()
    (tmp_path / ".git").mkdir()
    for name in ("z.yaml", "a.yml", "b/c.yaml", "README.md", ".hidden.yaml", ".git/x.yaml", "old.yaml.bak"):
        (tmp_path / name).write_text(name)
    assert list(read_folder(tmp_path).items()) == [("a.yml", "a.yml"), ("b/c.yaml", "b/c.yaml"), ("z.yaml", "z.yaml")]
    assert read_folder(tmp_path / "z.yaml") == {"z.yaml": "z.yaml"}
    (tmp_path / "empty").mkdir()
    assert read_folder(tmp_path / "empty") == {}


def test_links_stay_inside(tmp_path: Path) -> None:
    """A link that ends in the folder is read (a mounted ConfigMap is made of such), one that leaves it is an error."""
    (tmp_path / "p" / "..data").mkdir(parents=True)
    (tmp_path / "p" / "..data" / "a.yaml").write_text("a")
    (tmp_path / "p" / "a.yaml").symlink_to("..data/a.yaml")
    assert read_folder(tmp_path / "p") == {"a.yaml": "a"}
    (tmp_path / "secret.yaml").write_text("secret")
    (tmp_path / "p" / "b.yaml").symlink_to("../secret.yaml")
    (tmp_path / "p" / "c").symlink_to(tmp_path)
    (tmp_path / "p" / "d.yaml").symlink_to("nowhere.yaml")
    found = told(tmp_path / "p")
    assert len(found) == 3
    assert "b.yaml: this link ends outside" in found[0]
    assert "c: a folder must be no link" in found[1]
    assert "d.yaml: can't be read" in found[2]


def test_a_name_that_is_no_text_is_told(tmp_path: Path) -> None:
    """Bytes that are not UTF-8 in a file's name: an error that can be written down, and no stack trace."""
    (tmp_path / os.fsdecode(b"caf\xe9.yaml")).write_text("a")
    assert told(tmp_path) == ["caf\\udce9.yaml: its name is not UTF-8"]


def test_what_can_not_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No UTF-8, too large, no regular file, too many, not there: each is an error and none is left out in silence."""
    assert "can't be read: no such file" in told(tmp_path / "nowhere")[0]
    (tmp_path / "latin.yaml").write_bytes(b"\xe9")
    (tmp_path / "large.yaml").write_text("x" * (policy_files.MAX_FILE_BYTES + 1))
    os.mkfifo(tmp_path / "pipe.yaml")
    assert [each.partition(": ")[2] for each in told(tmp_path)] == [
        f"can't be read: above {policy_files.MAX_FILE_BYTES} bytes",
        "not UTF-8",
        "can't be read: not a regular file",
    ]
    monkeypatch.setattr(policy_files, "MAX_FILES", 2)
    assert "more than 2 files" in told(tmp_path)[0]
    monkeypatch.setattr(policy_files, "MAX_TOTAL_BYTES", 0)
    assert any("together" in each for each in told(tmp_path / "latin.yaml"))
