"""Configuration: a file, overridden by the environment; every mistake is named with its place and no value is shown."""

from __future__ import annotations

import tomllib
from datetime import timedelta
from pathlib import Path
from typing import Literal, Self

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, SecretStr, ValidationError, model_validator

from livery.errors import Kind
from livery.runtime.config import ConfigError, Duration, Section, Size, effective, load
from livery.runtime.toml_lines import key_lines


class Keys(Section):
    """Where keys are."""

    path: Path = Path("/var/keys")
    """The directory of the key files."""
    password: SecretStr = SecretStr("")
    """What encrypts them."""


class Sampling(Section):
    share: float = 0.5
    """How much of all."""


class Door(Section):
    path: str
    """The socket."""
    socket_mode: int = 0o660
    """Its permissions."""
    owner: str = ""
    """Whose it is."""


class Doors(Section):
    socket: Door
    """The only one."""


class Ca(Section):
    """The settings of a CA, as far as these tests need them."""

    trust_domain: str
    """The trust domain."""
    x509_svid_ttl: Duration = timedelta(hours=1)
    """How long an X509-SVID is valid."""
    max_body: Size = 1 << 20
    """The longest request."""
    port: int = Field(default=8443, ge=1, le=65535)
    """The port."""
    mode: Literal["strict", "lax"] = "strict"
    """How strict."""
    admin_ids: tuple[str, ...] = ()
    """Who may administer."""
    debug: bool = False
    """Whether to say more."""
    keys: Keys = Keys()
    """The key store."""
    backup: Keys | None = None
    """A second key store."""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "livery.toml"
    path.write_text(text)
    return path


def refused(path: Path | None, environ: dict[str, str] | None = None) -> ConfigError:
    with pytest.raises(ConfigError) as raised:
        load(Ca, "ca", path, environ or {})
    assert raised.value.kind is Kind.INVALID
    return raised.value


def test_values_come_from_the_roles_table_and_defaults_fill_the_rest(tmp_path: Path) -> None:
    path = write(tmp_path, '[ca]\ntrust_domain = "td"\nx509_svid_ttl = "90s"\nmax_body = "10MiB"\n[agent]\nx = 1\n')
    ca = load(Ca, "ca", path, {})
    assert ca.x509_svid_ttl == timedelta(seconds=90)
    assert ca.max_body == 10 << 20
    assert ca.keys.path == Path("/var/keys")


def test_a_variable_wins_over_the_file_also_in_nested_tables_and_arrays(tmp_path: Path) -> None:
    path = write(tmp_path, '[ca]\ntrust_domain = "td"\nport = 1\n[ca.keys]\npath = "/a"\n')
    environ = {
        "LIVERY_CA__PORT": "2",
        "LIVERY_CA__KEYS__PATH": "/b",
        "LIVERY_CA__BACKUP__PATH": "/c",
        "LIVERY_CA__ADMIN_IDS": '["spiffe://td/a", "spiffe://td/b"]',
        "LIVERY_CA__DEBUG": "true",
        "HOME": "/root",
    }
    ca = load(Ca, "ca", path, environ)
    assert (ca.port, ca.keys.path, ca.debug) == (2, Path("/b"), True)
    assert ca.admin_ids == ("spiffe://td/a", "spiffe://td/b")
    assert ca.backup is not None
    assert ca.backup.path == Path("/c")


def test_no_file_is_fine_when_the_environment_says_enough() -> None:
    assert load(Ca, "ca", None, {"LIVERY_CA__TRUST_DOMAIN": "td"}).trust_domain == "td"


def test_the_value_is_frozen() -> None:
    ca = load(Ca, "ca", None, {"LIVERY_CA__TRUST_DOMAIN": "td"})
    with pytest.raises(ValidationError, match="frozen"):
        ca.port = 1  # type: ignore[misc]  # the point of the test


def test_a_mistyped_key_is_refused_with_its_line_and_the_nearest_known_one(tmp_path: Path) -> None:
    path = write(tmp_path, '# comment\n[ca]\ntrust_domain = "td"\nx509_svid_tll = "1h"\n')
    (problem,) = refused(path).problems
    assert problem.where == f"{path}:4"
    assert problem.what == "unknown key 'x509_svid_tll'"
    assert problem.fix == "did you mean x509_svid_ttl?"


def test_a_mistyped_key_in_a_nested_table_is_refused_too(tmp_path: Path) -> None:
    path = write(tmp_path, '[ca]\ntrust_domain = "td"\n\n[ca.keys]\npaht = "/a"\n')
    (problem,) = refused(path).problems
    assert (problem.where, problem.fix) == (f"{path}:5", "did you mean keys.path?")


def test_a_mistyped_table_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, '[ca]\ntrust_domain = "td"\n[agnet]\nx = 1\n')
    (problem,) = refused(path).problems
    assert (problem.where, problem.fix) == (f"{path}:3", "did you mean agent?")


def test_keys_outside_any_table_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, 'port = 1\n[ca]\ntrust_domain = "td"\n')
    (problem,) = refused(path).problems
    assert problem.where == f"{path}:1"


@pytest.mark.parametrize(
    ("variable", "nearest"),
    [
        ("LIVERY_CA__X509_SVID_TLL", "LIVERY_CA__X509_SVID_TTL"),
        ("LIVERY_CA__KEYS__PAHT", "LIVERY_CA__KEYS__PATH"),
        ("LIVERY_CA_PORT", "LIVERY_CA__PORT"),
        ("LIVERY_CONFG", "LIVERY_CONFIG"),
        ("LIVERY_CA__port", "LIVERY_CA__PORT"),
    ],
)
def test_a_mistyped_variable_is_refused_with_the_nearest_known_one(variable: str, nearest: str) -> None:
    (problem,) = refused(None, {"LIVERY_CA__TRUST_DOMAIN": "td", variable: "s3cret"}).problems
    assert problem.where == variable
    assert problem.fix == f"did you mean {nearest}?"


def test_variables_of_other_roles_and_of_the_command_line_are_left_alone() -> None:
    environ = {
        "LIVERY_CA__TRUST_DOMAIN": "td",
        "LIVERY_AGENT__ANYTHING": "x",
        "LIVERY_CONFIG": "/etc/livery.toml",
        "LIVERY_CA_SOCKET": "unix:/run/x",
    }
    assert load(Ca, "ca", None, environ).trust_domain == "td"


def test_every_problem_is_told_at_once_with_its_own_place(tmp_path: Path) -> None:
    path = write(tmp_path, '[ca]\nport = 70000\nmode = "laxx"\nx509_svid_ttl = 60\n')
    error = refused(path, {"LIVERY_CA__MAX_BODY": "10", "LIVERY_CA__TYPO": "1"})
    assert {problem.where for problem in error.problems} == {
        str(path),
        f"{path}:2",
        f"{path}:3",
        f"{path}:4",
        "LIVERY_CA__MAX_BODY",
        "LIVERY_CA__TYPO",
    }
    assert "6 problems" in error.what
    assert "'trust_domain' is required" in error.why
    assert "LIVERY_CA__TRUST_DOMAIN" in error.fix


def test_a_bare_number_is_not_a_duration_wherever_it_comes_from(tmp_path: Path) -> None:
    path = write(tmp_path, '[ca]\ntrust_domain = "td"\nx509_svid_ttl = 3600\n')
    assert "with its unit" in refused(path).why
    assert "with its unit" in refused(None, {"LIVERY_CA__TRUST_DOMAIN": "td", "LIVERY_CA__X509_SVID_TTL": "60"}).why


class Either(Section):
    """A table whose settings exclude each other."""

    file: Path | None = None
    """One."""
    text: str | None = None
    """The other."""

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.file is None) == (self.text is None):
            raise ValueError("give exactly one of file and text")
        return self


def test_a_rule_about_several_settings_names_the_file_and_the_table(tmp_path: Path) -> None:
    """It has no line of its own, and is no matter of a default."""
    path = write(tmp_path, '[ca]\nfile = "a"\ntext = "b"\n')
    for file, place in ((path, str(path)), (None, "no configuration file")):
        with pytest.raises(ConfigError) as raised:
            load(Either, "ca", file, {})
        (problem,) = raised.value.problems
        assert (problem.where, problem.what) == (place, "[ca]: give exactly one of file and text")


def test_no_error_repeats_a_value(tmp_path: Path) -> None:
    path = write(tmp_path, '[ca]\nport = "hunter2"\nmode = "hunter2"\nunknown = "hunter2"\n[ca.keys]\npassword = 5\n')
    error = refused(path, {"LIVERY_CA__X509_SVID_TTL": "hunter2", "LIVERY_HUNTER": "hunter2"})
    assert "hunter2" not in repr(error) + str(error) + error.fix + str(error.__cause__) + str(error.problems)


@pytest.mark.parametrize("text", ["[ca\n", "[ca]\nx = \n", "[ca]\nx = 1\nx = 2\n", "[ca]\nx = '''unclosed"])
def test_what_is_not_toml_is_said_with_its_line_when_there_is_one(tmp_path: Path, text: str) -> None:
    (problem,) = refused(write(tmp_path, text)).problems
    assert problem.where.startswith(str(tmp_path / "livery.toml"))
    assert problem.what.startswith("is not TOML")


def test_toml_nested_without_end_is_refused_and_the_process_lives(tmp_path: Path) -> None:
    assert "is not TOML" in refused(write(tmp_path, "[ca]\nx = " + "[" * 100_000)).why


def test_what_is_no_number_is_none_of_a_size_or_a_share(tmp_path: Path) -> None:
    """`true` is 1 to Python, and TOML has words for what is no number."""
    path = write(tmp_path, '[ca]\ntrust_domain = "td"\nmax_body = true\n')
    assert [problem.where for problem in refused(path).problems] == [f"{path}:3"]
    for word in ("nan", "inf", "-inf"):
        with pytest.raises(ConfigError, match="share"):
            load(Sampling, "ca", write(tmp_path, f"[ca]\nshare = {word}\n"), {})


def test_a_number_that_python_does_not_read_is_refused_like_any_other_mistake(tmp_path: Path) -> None:
    """More digits than `int` takes is a plain ValueError of the TOML reader."""
    digits = "9" * 5000
    assert "is not TOML" in refused(write(tmp_path, f"[ca]\nport = {digits}\n")).why
    environ = {"LIVERY_CA__TRUST_DOMAIN": "td", "LIVERY_CA__ADMIN_IDS": f"[{digits}]"}
    assert [problem.where for problem in refused(None, environ).problems] == ["LIVERY_CA__ADMIN_IDS"]


def test_a_file_that_is_not_utf8_or_missing_or_a_directory_or_too_long_is_said(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"[ca]\ntrust_domain = '\xff'\n")
    (tmp_path / "long").write_bytes(b"#" * (2 << 20))
    assert refused(tmp_path / "latin").problems[0].where.endswith("latin:2")
    assert "No such file" in refused(tmp_path / "missing").why
    assert "directory" in refused(tmp_path).why
    assert "longer" in refused(tmp_path / "long").why


def test_a_role_that_is_not_a_table_is_refused(tmp_path: Path) -> None:
    assert "must be a table" in refused(write(tmp_path, "ca = 5\n")).why


def test_effective_shows_each_value_with_its_source_and_hides_secrets(tmp_path: Path) -> None:
    path = write(tmp_path, '[ca]\ntrust_domain = "td"\n[ca.keys]\npassword = "hunter2"\n')
    settings = {s.name: s for s in effective(Ca, "ca", path, {"LIVERY_CA__PORT": "2"})}
    assert (settings["trust_domain"].value, settings["trust_domain"].source) == ("td", f"{path}:2")
    assert (settings["port"].value, settings["port"].source) == ("2", "LIVERY_CA__PORT")
    assert (settings["x509_svid_ttl"].value, settings["x509_svid_ttl"].source) == ("1h", "default")
    assert settings["keys.password"].source == f"{path}:4"
    assert "hunter2" not in str(settings)


def test_effective_tells_a_default_from_a_value_of_the_same_table(tmp_path: Path) -> None:
    path = write(tmp_path, '[ca]\n[ca.socket]\npath = "/s"\n')
    settings = {s.name: s for s in effective(Doors, "ca", path, {})}
    assert (settings["socket.path"].value, settings["socket.path"].source) == ("/s", f"{path}:3")
    assert (settings["socket.socket_mode"].value, settings["socket.socket_mode"].source) == ("0o660", "default")
    assert (settings["socket.owner"].value, settings["socket.owner"].source) == ('""', "default")


def test_a_setting_without_documentation_cannot_be_declared() -> None:
    with pytest.raises(TypeError, match="without documentation: bare"):

        class _Undocumented(Section):
            bare: int = 1


def test_lines_are_found_through_arrays_of_tables_quoted_keys_and_long_strings() -> None:
    text = 'a."b c" = 1\nlong = """\nx = 1\n"""\n[[t]]\nk = 1\n[[t]]\nk = 2\n[t.sub]\nz = 1\n'
    tomllib.loads(text)
    lines = key_lines(text)
    assert lines["a", "b c"] == 1
    assert ("x",) not in lines
    assert lines["t", 0, "k"] == 6
    assert lines["t", 1, "k"] == 8
    assert lines["t", 1, "sub", "z"] == 10


@given(st.text(alphabet="[]=\"'.\n ab1#", max_size=60))
def test_the_line_scan_never_fails(text: str) -> None:
    key_lines(text)
