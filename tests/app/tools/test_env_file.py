"""How `python -m tools.wecom create` changes a `.env`: what it sets, all that it keeps, modes, links, failures."""

from __future__ import annotations

import os
import stat
import sys
from io import StringIO
from pathlib import Path

import pytest
from dotenv import dotenv_values

from tools._wecom.env_file import EnvFile, EnvFileUnusable, changed

NEW = {"WECHAT_BOT_ID": "aibNEW", "WECHAT_BOT_SECRET": "new-secret"}


@pytest.fixture
def env(tmp_path: Path) -> Path:
    return tmp_path / ".env"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "WECHAT_BOT_ID=aibNEW\nWECHAT_BOT_SECRET=new-secret\n"),
        ("A=1", "A=1\nWECHAT_BOT_ID=aibNEW\nWECHAT_BOT_SECRET=new-secret\n"),
        ("A=1\r\n", "A=1\r\nWECHAT_BOT_ID=aibNEW\r\nWECHAT_BOT_SECRET=new-secret\r\n"),
        (
            "\ufeff# mine\r\nWECHAT_BOT_SECRET=\r\n\r\nWECHAT_BOT_ID=old\r\nA='x # y'",
            "\ufeff# mine\r\nWECHAT_BOT_SECRET=new-secret\r\n\r\nWECHAT_BOT_ID=aibNEW\r\nA='x # y'",
        ),
        (
            "# WECHAT_BOT_ID=in a comment\n\n  export WECHAT_BOT_ID='a\nb'  # two lines\nB=\"WECHAT_BOT_SECRET=no\"\n"
            "WECHAT_BOT_SECRET=one\n\nWECHAT_BOT_SECRET=two\nC=3\n",
            '# WECHAT_BOT_ID=in a comment\n\n  export WECHAT_BOT_ID=aibNEW\nB="WECHAT_BOT_SECRET=no"\n'
            "WECHAT_BOT_SECRET=new-secret\n\nC=3\n",
        ),
        (
            "broken 'line\nWECHAT_BOT_IDS=other\nWECHAT_BOT_SECRET=\n",
            "broken 'line\nWECHAT_BOT_IDS=other\nWECHAT_BOT_SECRET=new-secret\nWECHAT_BOT_ID=aibNEW\n",
        ),
    ],
    ids=["empty", "no line end", "CRLF", "BOM", "quotes and doubles", "broken line"],
)
def test_only_the_lines_of_the_new_values_change(before: str, after: str, env: Path) -> None:
    """Comments, quotes, line ends and empty lines stay, byte for byte; an old value is left nowhere."""
    env.write_bytes(before.encode())

    EnvFile(str(env)).save(NEW)

    assert env.read_bytes() == after.encode()


@pytest.mark.parametrize(
    "value", ["a b", "it's", "back\\slash", 'qu"ote', "#hash", "$HOME", "dollar$$", "=+/:@-_.", "`x`"]
)
def test_a_value_is_read_back_as_it_was(value: str) -> None:
    """Quotes and escapes are those of `.env` files."""
    text = changed("", {"A": value})

    assert dotenv_values(stream=StringIO(text))["A"] == value


def test_a_value_that_would_be_read_differently_is_refused(env: Path) -> None:
    """`${…}` is replaced by every reader of the file, in quotes too; the file stays as it was."""
    env.write_text("A=1\n")

    with pytest.raises(EnvFileUnusable, match="read back") as caught:
        EnvFile(str(env)).save({"WECHAT_BOT_SECRET": "x${HOME}y"})

    assert env.read_text() == "A=1\n"
    assert "HOME" not in str(caught.value)


@pytest.mark.parametrize("before", [None, 0o644, 0o600, 0o666])
def test_the_file_is_for_its_owner_alone(before: int | None, env: Path) -> None:
    """The new file has mode 0600, whatever the old one had and whatever the umask is."""
    if before is not None:
        env.write_text("A=1\n")
        env.chmod(before)
    old = os.umask(0)
    try:
        EnvFile(str(env)).save(NEW)
    finally:
        os.umask(old)

    assert mode(env) == 0o600


def test_no_file_was_ever_open_to_others(env: Path) -> None:
    """After each call that the tool makes while it writes, the folder has nothing but files of mode 0600."""
    env.touch(0o600)
    seen: list[set[int]] = []

    def look(frame: object, event: str, called: object) -> None:
        if event == "c_return":
            seen.append({mode(path) for path in env.parent.iterdir()})

    old = os.umask(0)
    sys.setprofile(look)
    try:
        EnvFile(str(env)).save({"WECHAT_BOT_SECRET": "secret"})
    finally:
        sys.setprofile(None)
        os.umask(old)

    assert len(seen) > 10
    assert set().union(*seen) == {0o600}


def test_a_link_stays_a_link(env: Path, tmp_path: Path) -> None:
    """The file that it leads to is replaced, in its own folder."""
    target = tmp_path / "config" / "prod.env"
    target.parent.mkdir()
    target.write_text("A=1\n")
    env.symlink_to(Path("config") / "prod.env")

    EnvFile(str(env)).save(NEW)

    assert env.is_symlink()
    assert target.read_text() == "A=1\nWECHAT_BOT_ID=aibNEW\nWECHAT_BOT_SECRET=new-secret\n"
    assert [path.name for path in target.parent.iterdir()] == ["prod.env"]


def test_the_owner_stays(env: Path) -> None:
    """A file that another user's process reads stays readable to it."""
    if os.getuid() != 0:
        pytest.skip("only root gives files away")
    env.write_text("A=1\n")
    os.chown(env, 12345, 12346)

    EnvFile(str(env)).save(NEW)

    assert (env.stat().st_uid, env.stat().st_gid, mode(env)) == (12345, 12346, 0o600)


def test_what_cannot_be_written_is_refused_before_anything_else(tmp_path: Path) -> None:
    """A missing folder, a folder in its place, and a text of another encoding are known when the file is opened."""
    (tmp_path / "gbk.env").write_bytes("A=来宝\n".encode("gbk"))
    for path, words in [("no/.env", "cannot be written"), (".", "cannot be read"), ("gbk.env", "not UTF-8")]:
        with pytest.raises(EnvFileUnusable, match=words):
            EnvFile(str(tmp_path / path))

    assert [path.name for path in tmp_path.iterdir()] == ["gbk.env"]


def test_values_that_cannot_take_their_place_are_not_lost(env: Path) -> None:
    """The new content lies beside the file, and the error names it but no value."""
    file = EnvFile(str(env))
    env.mkdir()

    with pytest.raises(EnvFileUnusable) as caught:
        file.save(NEW)

    (kept,) = env.parent.glob(".env.*")
    assert str(kept) in str(caught.value)
    assert "new-secret" not in str(caught.value)
    assert dotenv_values(kept) == NEW
    assert mode(kept) == 0o600
