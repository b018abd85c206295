"""Logs: their two forms, their files, and that several processes may share these."""

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

from config.log_fields import HOST, log_fields
from config.logging import configure_logging
from services.errors import SettingsError

log = logging.getLogger("tests.logging")

ROOT = Path(__file__).parents[3]

#: Two of these processes fork one child each: four write. The files are so small that they rotate hundreds of times.
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
def _logging_as_it_was() -> Iterator[None]:
    """Take our handlers away after each test and put back what was there."""
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


def test_json_has_one_object_per_line(written: io.StringIO) -> None:
    """Time in UTC, level, logger, process and message come first, then the extra fields as they are."""
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
    """An error's traceback is part of its object."""
    configure_logging("INFO", "json", stream=written)

    _fail()

    [line] = objects(written)
    assert line["level"] == "ERROR"
    assert line["exc_info"].endswith("ZeroDivisionError: division by zero")


def test_plain_is_time_logger_level_message_and_fields(written: io.StringIO) -> None:
    """A plain line reads as the originals' did, the process and the extra fields behind it."""
    configure_logging("DEBUG", "plain", stream=written)

    log.debug("[调试] 剩余未读消息数: %d", 2, extra={"lane": "l1", "words": "a b", "none": ""})

    pattern = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} - tests\.logging - DEBUG - \[调试\] 剩余未读消息数: 2 (.*)\n"
    found = re.fullmatch(pattern, written.getvalue())
    assert found
    assert found[1] == f'pid={os.getpid()} lane=l1 words="a b" none=""'


def test_lines_of_one_piece_of_work_have_its_fields(written: io.StringIO) -> None:
    """What a thread logs inside the block has them, under a field of its own; other threads and later lines do not."""
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
    """Under gevent a thread is a greenlet, and each has the fields of its own work."""
    script = """
from gevent import monkey; monkey.patch_all()
import logging, threading, time
from config.log_fields import log_fields
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


def test_a_line_break_cannot_forge_a_plain_line(written: io.StringIO) -> None:
    """What a person typed stays within its line; only a traceback has more."""
    configure_logging("INFO", "plain", stream=written)

    log.info("said: %s", "hello\r\n2026-01-01 - root - ERROR - forged", extra={"also": "a\nb"})
    assert len(written.getvalue().splitlines()) == 1
    assert 'also="a\\nb"' in written.getvalue()

    _fail()
    assert "Traceback" in written.getvalue().splitlines()[2]


#: ESC, NEL, CSI, DEL, line and paragraph separator, overrides of direction.
CONTROLS = "\x1b[2J\x85\x9b1m\x7f\u2028\u2029\u202e\u2066"


@pytest.mark.parametrize("fmt", ["json", "plain"])
def test_control_characters_are_escaped(written: io.StringIO, fmt: str) -> None:
    """In the message, in a field and in a traceback; words of any language stay as they are."""
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
def test_half_a_surrogate_pair_can_be_written(fmt: str) -> None:
    """It has no form in UTF-8, and would cost the whole line."""
    configure_logging("INFO", fmt)
    record = logging.LogRecord("tests", logging.INFO, "", 1, "said \ud800", None, None)

    assert r"said \ud800" in logging.getLogger().handlers[-1].format(record)


def test_the_level_is_kept(written: io.StringIO) -> None:
    """Below the level nothing is written."""
    configure_logging("WARNING", "plain", stream=written)

    log.info("quiet")
    log.warning("loud")

    assert "quiet" not in written.getvalue()
    assert "loud" in written.getvalue()


@pytest.mark.parametrize("fmt", ["json", "plain"])
def test_known_secrets_are_masked(written: io.StringIO, fmt: str) -> None:
    """A secret that slips into a message, a field or a traceback leaves as ***; a short one is left alone."""
    secrets = ["fake-secret", 'fake"quoted\\secret', "fake-secret-longer", "root"]
    configure_logging("INFO", fmt, stream=written, secrets=secrets)

    log.info("root %s", "fake-secret-longer", extra={"key": 'fake"quoted\\secret', "url": "http://x/?k=fake-secret"})
    _fail("fake-secret")

    assert "fake" not in written.getvalue()
    assert "longer" not in written.getvalue()
    assert "root ***" in written.getvalue()
    assert "http://x/?k=***" in written.getvalue()


def test_configuring_again_replaces_the_first(written: io.StringIO, tmp_path: Path) -> None:
    """A second configuration writes each line once, and only where it says; foreign handlers stay."""
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
    """A container's lines go to standard output."""
    configure_logging()

    log.info("started")

    assert json.loads(capsys.readouterr().out)["message"] == "started"


def test_gunicorns_own_lines_look_like_ours(written: io.StringIO) -> None:
    """What gunicorn says goes our way, once; its access lines, which carry signatures, are off."""
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
def test_libraries_speak_up_only_from_warnings_on(written: io.StringIO, name: str) -> None:
    """At DEBUG our lines are wanted, not those of the libraries."""
    configure_logging("DEBUG", "json", stream=written)

    logging.getLogger(name).info("chatter")
    logging.getLogger(name).warning("trouble")

    assert [line["message"] for line in objects(written)] == ["trouble"]


class TestFiles:
    def test_info_and_errors_have_their_files(self, written: io.StringIO, tmp_path: Path) -> None:
        """info.log has INFO and above, error.log errors alone, in UTF-8, in a folder that is made."""
        folder = tmp_path / "made" / "logs"
        configure_logging("DEBUG", "plain", str(folder), stream=written)

        for level in (logging.DEBUG, logging.INFO, logging.ERROR):
            log.log(level, "来宝 %d", level)

        assert _numbers(folder / "info.log") == [logging.INFO, logging.ERROR]
        assert _numbers(folder / "error.log") == [logging.ERROR]
        assert len(written.getvalue().splitlines()) == 3

    def test_a_folder_that_cannot_be_written_stops_the_start(self, tmp_path: Path) -> None:
        """The line names LOG_DIR."""
        (tmp_path / "logs").write_text("a file")

        with pytest.raises(SettingsError, match=r"LOG_DIR=.* expected a folder to write to"):
            configure_logging(log_dir=str(tmp_path / "logs"))

    def test_ten_megabytes_five_times_is_the_rule(self, tmp_path: Path) -> None:
        """Files are as large and as many as documented."""
        configure_logging(log_dir=str(tmp_path))

        handlers = logging.getLogger().handlers
        files = [handler for handler in handlers if isinstance(handler, ConcurrentRotatingFileHandler)]
        assert [(file.maxBytes, file.backupCount) for file in files] == [(10 * 1024 * 1024, 5)] * 2

    def test_old_files_make_room(self, tmp_path: Path) -> None:
        """No more than the given number of old files is kept."""
        configure_logging(log_dir=str(tmp_path), max_bytes=500, backups=2, stream=io.StringIO())

        for number in range(50):
            log.info("line %d", number)

        assert sorted(path.name for path in tmp_path.glob("info.log*")) == ["info.log", "info.log.1", "info.log.2"]

    def test_several_processes_share_a_file_that_rotates(self, tmp_path: Path) -> None:
        """Every line of four processes is there, whole and once, in both files."""
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

    def test_it_works_under_gevent(self, tmp_path: Path) -> None:
        """Many greenlets of a patched process lose no line."""
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
