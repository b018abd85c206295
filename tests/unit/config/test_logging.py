"""Logging: the two formats, masking and escaping, and rotating files that several processes share."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from concurrent_log_handler import ConcurrentRotatingFileHandler

from config.errors import SettingsError
from config.logging import HOST, configure_logging, log_fields

log = logging.getLogger("tests.logging")

ROOT = Path(__file__).parents[3]

#: Two of these processes run and fork one child each, so four write. At 4096 bytes a file rotates hundreds of times.
WRITER = """
import logging, os, sys
from config.logging import configure_logging

configure_logging("INFO", "json", sys.argv[1], max_bytes=4096, backups=2000)
name = "parent" if (child := os.fork()) else "child"
for number in range(150):
    logging.getLogger(name).error("来宝 " * 10, extra={"writer": sys.argv[2] + name, "number": number})
if child:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    """Remove the handlers that a test added, and restore the root logger's level."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield
    for handler in [handler for handler in root.handlers if handler not in before]:
        root.removeHandler(handler)
        handler.close()
    root.setLevel(level)


@pytest.fixture
def written() -> io.StringIO:
    return io.StringIO()


def objects(written: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in written.getvalue().splitlines()]


def test_json_writes_one_object_per_line(written: io.StringIO) -> None:
    """Time (UTC), level, logger, pid and message come first, then the extra fields with their JSON types."""
    configure_logging("INFO", "json", stream=written)

    log.info("stream %s\ndone", "来宝", extra={"stream_id": "s1", "chunks": 3, "level": "mine", "at": {1, 2}})

    [line] = objects(written)
    assert list(line)[:5] == ["time", "level", "logger", "pid", "message"]
    assert line["pid"] == os.getpid()
    assert (line["level"], line["logger"], line["message"]) == ("INFO", "tests.logging", "stream 来宝\ndone")
    assert (line["stream_id"], line["chunks"]) == ("s1", 3)
    assert line["time"].endswith("Z")
    assert abs(datetime.fromisoformat(line["time"]) - datetime.now(UTC)) < timedelta(minutes=1)
    assert "来宝" in written.getvalue()


def test_json_carries_the_traceback(written: io.StringIO) -> None:
    """An error's traceback is in the field exc_info of its object."""
    configure_logging("INFO", "json", stream=written)

    _fail()

    [line] = objects(written)
    assert line["level"] == "ERROR"
    assert line["exc_info"].endswith("ZeroDivisionError: division by zero")


def test_a_plain_line_has_time_logger_level_message_and_fields(written: io.StringIO) -> None:
    """A plain line has the original's format, followed by the pid and the extra fields."""
    configure_logging("DEBUG", "plain", stream=written)

    log.debug("[调试] 剩余未读消息数: %d", 2, extra={"lane": "l1", "words": "a b", "none": ""})

    pattern = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} - tests\.logging - DEBUG - \[调试\] 剩余未读消息数: 2 (.*)\n"
    found = re.fullmatch(pattern, written.getvalue())
    assert found
    assert found[1] == f'pid={os.getpid()} lane=l1 words="a b" none=""'


def test_log_fields_apply_to_the_thread_inside_the_block(written: io.StringIO) -> None:
    """A line's own extra field takes precedence; other threads and later lines do not get the fields."""
    configure_logging("INFO", "json", stream=written)

    with log_fields(stream_id="s1", bot="hr"):
        with log_fields(person="p1"):
            log.info("inside", extra={"bot": "it"})
        elsewhere = threading.Thread(target=log.info, args=("elsewhere",))
        elsewhere.start()
        elsewhere.join()
    log.info("after")

    inside, elsewhere_line, after = objects(written)
    names = ("stream_id", "bot", "person", "replica")
    assert [inside[name] for name in names] == ["s1", "it", "p1", f"{HOST}:{os.getpid()}"]
    assert not {*names} & {*elsewhere_line, *after}


def test_greenlets_do_not_mix_their_fields() -> None:
    """Under gevent a thread is a greenlet, and each one's lines have the fields of its own block."""
    script = """
from gevent import monkey; monkey.patch_all()
import logging, threading, time
from config.logging import log_fields
from config.logging import configure_logging
configure_logging("INFO", "json")
def work(number):
    with log_fields(stream_id=number):
        for _ in range(3):
            time.sleep(0.01)
            logging.info("%d", number)
threads = [threading.Thread(target=work, args=(number,)) for number in range(20)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""
    printed = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, check=True, timeout=90)

    lines = [json.loads(line) for line in printed.stdout.splitlines()]
    assert Counter((line["message"], line["stream_id"]) for line in lines) == {(str(n), n): 3 for n in range(20)}


def test_a_line_break_in_a_message_is_escaped_in_plain_lines(written: io.StringIO) -> None:
    """A person's text cannot forge a log line; only a traceback takes several lines."""
    configure_logging("INFO", "plain", stream=written)

    log.info("said: %s", "hello\r\n2026-01-01 - root - ERROR - forged", extra={"also": "a\nb"})
    assert len(written.getvalue().splitlines()) == 1
    assert 'also="a\\nb"' in written.getvalue()

    _fail()
    assert "Traceback" in written.getvalue().splitlines()[2]


#: ESC, NEL, CSI, DEL, line and paragraph separators, direction overrides.
CONTROLS = "\x1b[2J\x85\x9b1m\x7f\u2028\u2029\u202e\u2066"


@pytest.mark.parametrize("fmt", ["json", "plain"])
def test_control_characters_are_escaped(written: io.StringIO, fmt: str) -> None:
    """This holds for messages, fields and tracebacks; text of any language stays as it is."""
    configure_logging("INFO", fmt, stream=written)

    log.info("said %s 来宝 😀\té", CONTROLS, extra={"path": f"/x{CONTROLS}"})
    try:
        raise ValueError(CONTROLS)
    except ValueError:
        log.exception("failed")

    text = written.getvalue()
    assert not {*CONTROLS} & {*text} - {*"[2J1m"}
    assert text.count(r"\u001b[2J\u0085\u009b1m\u007f\u2028\u2029\u202e\u2066") == 3
    assert "来宝 😀" in text
    if fmt == "json":
        assert objects(written)[0]["path"] == f"/x{CONTROLS}"


@pytest.mark.parametrize("fmt", ["json", "plain"])
def test_a_lone_surrogate_is_escaped(fmt: str) -> None:
    """It cannot be encoded in UTF-8: unescaped, the whole line would be lost."""
    configure_logging("INFO", fmt)
    record = logging.LogRecord("tests", logging.INFO, "", 1, "said \ud800", None, None)

    assert r"said \ud800" in logging.getLogger().handlers[-1].format(record)


@pytest.mark.parametrize("fmt", ["json", "plain"])
def test_known_secrets_are_masked(written: io.StringIO, fmt: str) -> None:
    """A secret in a message, a field or a traceback is written as ***; one under 8 characters is not masked."""
    secrets = ["fake-secret", 'fake"quoted\\secret', "fake-secret-longer", "root"]
    configure_logging("INFO", fmt, stream=written, secrets=secrets)

    log.info("root %s", "fake-secret-longer", extra={"key": 'fake"quoted\\secret', "url": "http://x/?k=fake-secret"})
    _fail("fake-secret")

    # The traceback names this file's folder, which may be called anything.
    told = written.getvalue().replace(str(ROOT), "")
    assert "fake" not in told
    assert "longer" not in told
    assert "root ***" in written.getvalue()
    assert "http://x/?k=***" in written.getvalue()


def test_a_second_configuration_replaces_the_first(written: io.StringIO, tmp_path: Path) -> None:
    """Each line is written once, to the new stream only; handlers that others added stay."""
    foreign = logging.NullHandler()
    logging.getLogger().addHandler(foreign)
    first = io.StringIO()
    configure_logging("INFO", "json", str(tmp_path), stream=first)

    configure_logging("INFO", "plain", stream=written)
    log.info("once")

    assert first.getvalue() == ""
    assert (tmp_path / "info.log").read_text() == ""
    assert len(written.getvalue().splitlines()) == 1
    assert foreign in logging.getLogger().handlers
    logging.getLogger().removeHandler(foreign)


def test_standard_output_is_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a stream the lines go to standard output, where containers expect them."""
    configure_logging()

    log.info("started")

    assert json.loads(capsys.readouterr().out)["message"] == "started"


def test_gunicorns_lines_have_our_format(written: io.StringIO) -> None:
    """gunicorn's error lines are written once, by our handler; its access lines, which contain signatures, are off."""
    before = io.StringIO()
    for name in ("gunicorn.error", "gunicorn.access"):
        logging.getLogger(name).addHandler(logging.StreamHandler(before))
        logging.getLogger(name).propagate = False

    configure_logging("INFO", "json", stream=written)
    logging.getLogger("gunicorn.error").info("Booting worker")
    logging.getLogger("gunicorn.access").info("GET /wechat/callback?msg_signature=x")

    assert before.getvalue() == ""
    assert [line["message"] for line in objects(written)] == ["Booting worker"]


@pytest.mark.parametrize("name", ["urllib3.connectionpool", "redis", "sqlalchemy.engine", "werkzeug"])
def test_libraries_log_warnings_only(written: io.StringIO, name: str) -> None:
    """At LOG_LEVEL DEBUG our own lines are written, but those of libraries only from WARNING on."""
    configure_logging("DEBUG", "json", stream=written)

    logging.getLogger(name).info("chatter")
    logging.getLogger(name).warning("trouble")

    assert [line["message"] for line in objects(written)] == ["trouble"]


class TestFiles:
    def test_info_and_errors_have_separate_files(self, written: io.StringIO, tmp_path: Path) -> None:
        """info.log has INFO and above, error.log only errors, both in UTF-8; a missing folder is created."""
        folder = tmp_path / "made" / "logs"
        configure_logging("DEBUG", "plain", str(folder), stream=written)

        for level in (logging.DEBUG, logging.INFO, logging.ERROR):
            log.log(level, "来宝 %d", level)

        assert _numbers(folder / "info.log") == [logging.INFO, logging.ERROR]
        assert _numbers(folder / "error.log") == [logging.ERROR]
        assert len(written.getvalue().splitlines()) == 3

    def test_a_folder_that_cannot_be_written_stops_the_start(self, tmp_path: Path) -> None:
        """The error's line names LOG_DIR."""
        (tmp_path / "logs").write_text("a file")

        with pytest.raises(SettingsError, match=r"LOG_DIR=.* expected a folder to write to"):
            configure_logging(log_dir=str(tmp_path / "logs"))

    def test_files_rotate_at_10_mib_with_5_old_files(self, tmp_path: Path) -> None:
        """These are the documented defaults, the same for info.log and error.log."""
        configure_logging(log_dir=str(tmp_path))

        handlers = logging.getLogger().handlers
        files = [handler for handler in handlers if isinstance(handler, ConcurrentRotatingFileHandler)]
        assert [(file.maxBytes, file.backupCount) for file in files] == [(10 * 1024 * 1024, 5)] * 2

    def test_the_oldest_file_is_deleted(self, tmp_path: Path) -> None:
        """With `backups=2` there are never more than two old files."""
        configure_logging(log_dir=str(tmp_path), max_bytes=500, backups=2, stream=io.StringIO())

        for number in range(50):
            log.info("line %d", number)

        assert sorted(path.name for path in tmp_path.glob("info.log*")) == ["info.log", "info.log.1", "info.log.2"]

    def test_several_processes_share_a_file_that_rotates(self, tmp_path: Path) -> None:
        """Every line of four processes is in info.log and error.log exactly once, and whole."""
        command = [sys.executable, "-c", WRITER, str(tmp_path)]
        writers = [subprocess.Popen([*command, name], cwd=ROOT, stdout=subprocess.DEVNULL) for name in ("one", "two")]

        assert [writer.wait(timeout=90) for writer in writers] == [0, 0]

        expected = {
            (f"{name}{role}", n): 1 for name in ("one", "two") for role in ("parent", "child") for n in range(150)
        }
        for name in ("info.log", "error.log"):
            files = list(tmp_path.glob(f"{name}*"))
            lines = [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]
            assert len(files) > 10
            assert Counter((line["writer"], line["number"]) for line in lines) == expected

    def test_greenlets_lose_no_line(self, tmp_path: Path) -> None:
        """20 greenlets of a process that gevent has patched write 20 lines each."""
        script = """
from gevent import monkey; monkey.patch_all()
import logging, sys, threading
from config.logging import configure_logging
configure_logging("INFO", "json", sys.argv[1])
threads = [threading.Thread(target=lambda n=n: [logging.info("%d", n) for _ in range(20)]) for n in range(20)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""
        command = [sys.executable, "-c", script, str(tmp_path)]

        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=False, timeout=90)

        lines = (tmp_path / "info.log").read_text().splitlines()
        assert done.returncode == 0
        assert Counter(json.loads(line)["message"] for line in lines) == {str(n): 20 for n in range(20)}


def _fail(words: str = "bad") -> None:
    try:
        _ = 1 / 0
    except ZeroDivisionError:
        log.exception(words)


def _numbers(path: Path) -> list[int]:
    return [int(line.split()[-2]) for line in path.read_text(encoding="utf-8").splitlines()]
