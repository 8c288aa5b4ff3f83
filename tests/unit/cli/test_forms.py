"""What users type and what they read: durations, entry files, tables, TOML."""

from __future__ import annotations

import json
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from livery_cli.commands import entry_file
from livery_cli.terminal.options import DURATION, TTL
from livery_cli.terminal.output import View, duration, show, show_one
from livery_cli.terminal.toml_text import toml

VIEW = View({"name": "NAME", "when": "WHEN"}, name="name")
ROW = {"name": "a", "when": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "extra": timedelta(minutes=5)}


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("10m", 600), ("1h30m", 5400), ("2d", 172800), ("250ms", 0.25), ("1.5h", 5400)]
)
def test_a_duration_is_read(text: str, seconds: float) -> None:
    assert DURATION.convert(text, None, None) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text",
    ["", "90", "s", "-5s", "1x", "1h 2m", "0s", "0.0000001s", "0.0004ms", "h1", "9" * 40 + "s", "2147483648s", "١s"],
)
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(click.BadParameter, match="write it like"):
        DURATION.convert(text, None, None)


@pytest.mark.parametrize("text", ["500ms", "1500ms", "0.5s"])
def test_a_lifetime_that_the_wire_would_round_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="whole seconds"):
        TTL.convert(text, None, None)
    assert TTL.convert("1.5m", None, None) == timedelta(seconds=90)


@pytest.mark.parametrize(("seconds", "text"), [(0, "0s"), (59, "59s"), (3900, "1h5m"), (90000, "1d1h"), (-61, "-1m1s")])
def test_a_duration_is_said_in_its_two_largest_units(seconds: int, text: str) -> None:
    assert duration(timedelta(seconds=seconds)) == text


def test_json_output_has_every_key_and_rfc_3339_times(capsys: pytest.CaptureFixture[str]) -> None:
    show([ROW], VIEW, "json")
    assert json.loads(capsys.readouterr().out) == [{"name": "a", "when": "2026-01-02T03:04:05Z", "extra": 300.0}]


def test_name_output_is_one_name_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    show([ROW, ROW | {"name": "b"}], VIEW, "name")
    assert capsys.readouterr().out == "a\nb\n"


def test_a_table_into_a_pipe_keeps_each_row_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    show([ROW | {"name": "x" * 300}], VIEW, "table")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("x" * 300)


def at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of 80 columns, as rich takes a dumb one to be."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "dumb")


def test_a_terminal_too_narrow_for_a_table_gets_a_block_for_each_row(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    at_a_terminal(monkeypatch)
    show([{"name": "x" * 76, "when": "now"}, {"name": "y", "when": "then"}], VIEW, "table")
    assert capsys.readouterr().out == f"NAME  {'x' * 76}\nWHEN  now\n\nNAME  y\nWHEN  then\n"


def test_a_terminal_with_room_for_the_names_gets_a_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    at_a_terminal(monkeypatch)
    show([{"name": "x" * 70, "when": "now"}], VIEW, "table")
    heading, row = capsys.readouterr().out.splitlines()
    assert heading.split() == ["NAME", "WHEN"]
    assert row.split() == ["x" * 70, "now"]


@pytest.mark.parametrize("text", ["/opt/[x]/bin", "/opt/[/x]/bin", "docker:label:key:v", "[link=http://x]y[/link]"])
def test_what_rich_would_read_as_markup_is_shown_as_it_is(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A path in brackets is no style, and `:key:` between two colons of a selector no picture."""
    show([{"name": text, "when": "now"}], VIEW, "table")
    assert capsys.readouterr().out.splitlines()[1].split() == [text, "now"]


def test_what_would_speak_to_the_terminal_is_shown_as_its_escape(capsys: pytest.CaptureFixture[str]) -> None:
    """Hints and the like are chosen by others; a line of a table stays one line."""
    hostile = {"name": "a\x1b[2J\x9b\u202eb\nid-of-no-entry", "when": ["x\x07"]}
    show([hostile], VIEW, "table")
    show_one(hostile, VIEW, "table")
    table, _, pairs = capsys.readouterr().out.partition("name")
    escaped = r"a\x1b[2J\x9b\u202eb"
    assert table.splitlines()[1].split() == [rf"{escaped}\nid-of-no-entry", r"x\x07"]
    assert pairs.splitlines()[0].endswith(escaped)


def test_one_thing_is_shown_with_every_key(capsys: pytest.CaptureFixture[str]) -> None:
    show_one(ROW, VIEW, "table")
    assert "extra  5m" in capsys.readouterr().out


@given(
    st.dictionaries(
        st.from_regex(r"[a-z_]{1,8}", fullmatch=True),
        st.one_of(
            st.text(st.characters(exclude_categories=["Cs"])), st.integers(-(2**60), 2**60), st.booleans(),
            st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=3),
        ),
        max_size=5,
    )
)  # fmt: skip
def test_written_toml_reads_back_the_same(table: dict[str, object]) -> None:
    assert tomllib.loads(toml({**table, "inner": table})) == {**table, "inner": table}


GOOD = """
[[entry]]
spiffe_id = "spiffe://example.org/web"
parent_id = "spiffe://example.org/node"
selectors = ["unix:uid:1000"]
x509_svid_ttl = "10m"
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "entries.toml"
    path.write_text(text)
    return path


def test_an_entry_file_is_read(tmp_path: Path) -> None:
    (entry,) = entry_file.read(write(tmp_path, GOOD))
    assert entry.spiffe_id.path == "/web"
    assert entry.x509_svid_ttl == 600


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("not toml", "not TOML"),
        ("x = " + "[" * 20000, "not TOML"),
        ("[entries]", r"\[\[entry\]\]"),
        (GOOD.replace("selectors", "selector"), "unknown key 'selector'"),
        (GOOD.replace('parent_id = "spiffe://example.org/node"', ""), "'parent_id' is missing"),
        (GOOD + GOOD, "twice"),
        (GOOD.replace('["unix:uid:1000"]', '"unix:uid:1000"'), "not a list"),
        (GOOD.replace('["unix:uid:1000"]', "[]"), "entry 1: selectors is empty"),
        (GOOD.replace("unix:uid:1000", "unix"), "entry 1: not a selector"),
        (GOOD + GOOD.replace("spiffe://example.org/web", "web"), "entry 2: not a SPIFFE ID: 'web'"),
        (GOOD.replace('"10m"', "600"), "x509_svid_ttl is not text"),
        (GOOD + "admin = 1", "not true or false"),
        (GOOD + 'jwt_svid_ttl = "0.5s"', "entry 1: jwt_svid_ttl is no lifetime: '0.5s' is not in whole seconds"),
    ],
)
def test_a_bad_entry_file_is_refused_with_its_reason(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(entry_file.InvalidEntryFile, match=said):
        entry_file.read(write(tmp_path, text))


def test_a_file_without_an_end_is_no_entry_file() -> None:
    with pytest.raises(entry_file.InvalidEntryFile, match="too long"):
        entry_file.read(Path("/dev/zero"))


def test_a_plan_creates_updates_and_on_request_deletes(tmp_path: Path) -> None:
    (wanted,) = entry_file.read(write(tmp_path, GOOD))
    (existing,) = entry_file.read(write(tmp_path, GOOD.replace("10m", "20m")))
    existing.id = "e1"
    (stray,) = entry_file.read(write(tmp_path, GOOD.replace("/web", "/other")))
    (elsewhere,) = entry_file.read(write(tmp_path, GOOD.replace("/node", "/other-node")))

    plan = entry_file.plan([wanted], [existing, stray, elsewhere], prune=True)
    assert [entry.id for entry in plan.update] == ["e1"]
    assert not plan.create
    assert plan.delete == (stray,), "an entry under a parent the file does not name is not ours to delete"
    assert not entry_file.plan([wanted], [existing, stray], prune=False).delete
    assert len(entry_file.plan([wanted], [], prune=True).create) == 1
    assert entry_file.plan([wanted], [wanted], prune=True).shown().text("table") == "nothing to change"
    told = json.loads(plan.shown().text("json"))
    assert [(each["change"], each["spiffe_id"], each["selectors"]) for each in told] == [
        ("update", "spiffe://example.org/web", ["unix:uid:1000"]),
        ("delete", "spiffe://example.org/other", ["unix:uid:1000"]),
    ]
    assert plan.shown().text("name").splitlines() == [each["spiffe_id"] for each in told]


def test_what_a_file_cannot_say_of_an_entry_stays_when_the_rest_changes(tmp_path: Path) -> None:
    """An entry that was to end on a day still does."""
    (wanted,) = entry_file.read(write(tmp_path, GOOD))
    (existing,) = entry_file.read(write(tmp_path, GOOD.replace("10m", "20m")))
    existing.id, existing.expires_at, existing.store_svid = "e1", 4102444800, True
    (update,) = entry_file.plan([wanted], [existing], prune=False).update
    assert (update.x509_svid_ttl, update.expires_at, update.store_svid) == (600, 4102444800, True)
