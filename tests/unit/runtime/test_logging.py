"""One JSON line per event, whoever said it, and no line stops the work."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from livery.runtime.logging import Sink, bound_contextvars, configure, get_logger
from tests.fakes.clock import FakeClock


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """Give the process its logging back."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_of_ours_is_json_with_time_level_event_role_and_request_id() -> None:
    stream = io.StringIO()
    configure("ca", stream=stream, clock=FakeClock())
    with bound_contextvars(request_id="r1"):
        get_logger("livery.ca").info("svid issued", serial="0a")
    (line,) = lines(stream)
    assert line == {
        "time": "2026-11-02T12:00:00.000+00:00",
        "level": "info",
        "event": "svid issued",
        "role": "ca",
        "request_id": "r1",
        "logger": "livery.ca",
        "serial": "0a",
    }
    assert list(line)[:5] == ["time", "level", "event", "role", "request_id"]


@pytest.mark.parametrize("name", ["uvicorn.error", "alembic.runtime", "grpc._cython.cygrpc", "any.library"])
def test_a_line_of_a_library_takes_the_same_form(name: str) -> None:
    stream = io.StringIO()
    configure("ca", stream=stream, clock=FakeClock())
    logging.getLogger(name).warning("%s of %d", "one", 3)
    (line,) = lines(stream)
    assert (line["event"], line["level"], line["role"], line["logger"]) == ("one of 3", "warning", "ca", name)


def test_uvicorns_own_line_per_request_is_not_written() -> None:
    stream = io.StringIO()
    configure("policy", stream=stream)
    logging.getLogger("uvicorn.access").info("GET / 200")
    assert stream.getvalue() == ""


def test_at_debug_grpcs_talk_about_its_event_loops_is_not_written() -> None:
    """A hundred lines at the start, all alike; a logger takes its level from the nearest above that has one."""
    stream = io.StringIO()
    configure("ca", "debug", stream)
    logging.getLogger("grpc._cython.cygrpc").debug("[_cygrpc] Loaded running loop")
    assert stream.getvalue() == ""
    logging.getLogger("grpc._cython.cygrpc").warning("something is wrong")
    assert len(lines(stream)) == 1


def test_a_library_that_installed_its_own_handler_is_adopted() -> None:
    stray = io.StringIO()
    logging.getLogger("uvicorn").addHandler(logging.StreamHandler(stray))
    stream = io.StringIO()
    configure("policy", stream=stream)
    logging.getLogger("uvicorn.error").error("x")
    assert stray.getvalue() == ""
    assert len(lines(stream)) == 1


def test_lines_below_the_level_are_not_written_and_an_unknown_level_is_refused() -> None:
    stream = io.StringIO()
    configure("ca", "warning", stream)
    get_logger().info("quiet")
    logging.getLogger("x").info("quiet")
    get_logger().warning("loud")
    assert [line["event"] for line in lines(stream)] == ["loud"]
    with pytest.raises(ValueError, match="log level"):
        configure("ca", "verbose", stream)


def test_a_level_that_is_changed_while_running_counts_for_ours_and_for_libraries() -> None:
    """The SPIRE API sets it, on the standard library's root logger."""
    stream = io.StringIO()
    configure("ca", "info", stream)
    ours = get_logger("livery.ca").bind()
    for level, seen in [(logging.DEBUG, 2), (logging.ERROR, 0), (logging.INFO, 0)]:
        before = len(lines(stream))
        logging.getLogger().setLevel(level)
        ours.debug("detail")
        logging.getLogger("lib").debug("detail")
        assert len(lines(stream)) - before == seen


def test_a_value_that_cannot_be_written_as_text_loses_its_line_and_stops_nothing() -> None:
    class Broken:
        def __str__(self) -> str:
            raise RuntimeError("a bug")

    stream = io.StringIO()
    sink = configure("ca", stream=stream)
    get_logger().info("lost", value=Broken())
    get_logger().info("said")
    assert sink.lost == 1
    assert [line["event"] for line in lines(stream)] == ["said"]


def test_a_traceback_is_text_without_local_variables_or_secrets() -> None:
    stream = io.StringIO()
    configure("ca", stream=stream)
    local_secret = "hunter2-local"
    try:
        raise RuntimeError("token hvs.CAESIJ1234567890abcdefghij refused " + str(len(local_secret)))
    except RuntimeError:
        get_logger().exception("failed")
        logging.getLogger("lib").exception("failed too")
    for line in lines(stream):
        assert "RuntimeError" in str(line["exception"])
        assert "hvs." not in str(line)
        assert local_secret not in str(line["exception"]).replace('local_secret = "hunter2-local"', "")


def test_a_line_of_a_library_cannot_carry_a_secret_either() -> None:
    stream = io.StringIO()
    configure("ca", stream=stream)
    logging.getLogger("hvac").warning("login with hvs.CAESIJ1234567890abcdefghij", extra={"token": "t"})
    assert "hvs." not in stream.getvalue()


def test_a_newline_in_a_value_does_not_make_a_second_line() -> None:
    stream = io.StringIO()
    configure("ca", stream=stream)
    get_logger().info("a\nb", path='/x"\n{"event":"forged"}')
    assert len(stream.getvalue().splitlines()) == 1


def test_plain_lines_are_for_people() -> None:
    stream = io.StringIO()
    configure("ca", stream=stream, json=False)
    get_logger().info("ready", address="127.0.0.1:1")
    assert "ready" in stream.getvalue()
    assert "address=127.0.0.1:1" in stream.getvalue()
    assert not stream.getvalue().startswith("{")


def test_configuring_twice_does_not_write_twice() -> None:
    stream = io.StringIO()
    configure("ca", stream=stream)
    configure("ca", stream=stream)
    get_logger().info("once")
    assert len(lines(stream)) == 1


def test_a_log_that_cannot_be_written_is_counted_and_stops_nothing() -> None:
    """/dev/full refuses every byte, as a full disk does."""
    with Path("/dev/full").open("w") as full:
        sink = configure("ca", stream=full)
        get_logger().info("lost")
        logging.getLogger("lib").error("lost too")
    assert sink.lost == 2


def test_the_sink_raises_for_whoever_must_know() -> None:
    with Path("/dev/full").open("w") as full, pytest.raises(OSError, match="No space"):
        Sink(full).write_line("x")


def test_after_a_torn_line_the_next_one_begins_at_the_margin(tmp_path: Path) -> None:
    """A reader of JSON lines loses the torn line, not the one after it."""
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    with os.fdopen(read_end, "rb") as reader, os.fdopen(write_end, "w") as writer:
        sink = Sink(writer, patience=0.01)
        with pytest.raises(BlockingIOError):
            sink.write_line("x" * 200_000)
        os.set_blocking(read_end, False)
        while reader.read1(1 << 20):
            pass
        sink.write_line("whole")
        assert reader.read() == b"\nwhole\n"


@pytest.mark.parametrize("rich", ["present", "blocked"])
@pytest.mark.parametrize("json_lines", [True, False])
def test_it_works_with_and_without_rich(rich: str, json_lines: bool) -> None:
    block = "import sys; sys.modules['rich'] = None\n" if rich == "blocked" else ""
    program = block + (
        "import sys\n"
        "from livery.runtime.logging import configure, get_logger\n"
        f"configure('agent', stream=sys.stdout, json={json_lines})\n"
        "local_secret = 'hunter2'[::-1]\n"
        "try:\n    1 / 0\n"
        "except ZeroDivisionError:\n    get_logger().exception('failed', a=1)\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "ZeroDivisionError" in ran.stdout
    assert "2retnuh" not in ran.stdout
    assert ran.stderr == ""
