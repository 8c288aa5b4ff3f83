"""Bad configuration, taken ports, and a state directory that cannot be used: each told with what, why and what to do.

Nothing is lost by it: where the state is mended, the role starts again and has what it had.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.roles import Home, Role, ca_home
from tests.e2e.running import livery, wait_until

USAGE, UNREACHABLE, REFUSED, INTERNAL = 2, 3, 4, 70
ENTRY = ("--spiffe-id", "spiffe://faults.test/kept", "--parent-id", "spiffe://faults.test/node", "--selector", "a:b")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A CA's home; what was started from it is stopped."""
    made = ca_home(tmp_path)
    yield made
    made.stop()


def clear(text: str, *names: str) -> None:
    """An error says what, then why or what to do, names these things, and is no traceback."""
    assert "error: " in text, text
    assert "why: " in text or "fix: " in text, text
    assert "Traceback" not in text
    for name in names:
        assert name in text, (name, text)


# Configuration


WRONG_CA = """\
[ca]
trust_domain = "UPPER.test"
trust_domian = "x.test"
ca_ttl = "soon"
listen_port = 99999
[ca.limit]
attestation = 1
"""
WRONG = {
    "ca": (WRONG_CA, (":2", "trust_domain", ":3", "trust_domian", ":4", "ca_ttl", ":5", "listen_port", "limits")),
    "agent": ('[agent]\nca_adress = "localhost:1"\n', (":2", "ca_adress", "ca_address")),
    "policy": ('[policy]\npolcy_dir = "/x"\n', (":2", "polcy_dir", "policy_dir")),
}


@pytest.mark.parametrize("role", WRONG)
def test_every_wrong_setting_is_told_with_its_line_and_the_nearest_known_one(tmp_path: Path, role: str) -> None:
    config = tmp_path / "livery.toml"
    text, told = WRONG[role]
    config.write_text(text)
    done = livery(role, "run", "--config", str(config))
    assert done.returncode == USAGE, done.stderr
    clear(done.stderr, *told)


def test_a_file_that_is_not_toml_is_told_with_its_line(tmp_path: Path) -> None:
    config = tmp_path / "livery.toml"
    config.write_text('[ca]\ntrust_domain = "x.test"\nlisten_port = \n')
    done = livery("ca", "config", "check", "--config", str(config))
    assert done.returncode == USAGE
    clear(done.stderr, f"{config}", "3")


def test_a_wrong_variable_is_told_by_its_name(home: Home) -> None:
    done = livery("ca", "run", "--config", str(home.write()), env={**os.environ, "LIVERY_CA__LISTEN_PROT": "1"})
    assert done.returncode == USAGE
    clear(done.stderr, "LIVERY_CA__LISTEN_PROT", "LIVERY_CA__LISTEN_PORT")


def test_a_configuration_that_is_not_there_is_told(tmp_path: Path) -> None:
    done = livery("ca", "run", "--config", str(tmp_path / "none.toml"))
    assert done.returncode == USAGE
    clear(done.stderr, "none.toml")


# Places


def test_a_port_in_use_is_told_with_its_number(home: Home) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        home.set("ca", listen_port=port)
        ca = home.start("ca")
        assert ca.end() == REFUSED
    clear(ca.told(), str(port))
    assert str(port) in ca.error["what"] + ca.error["why"]
    home.start("ca").up()  # nothing was lost, and the port is free again


def test_a_state_directory_that_cannot_be_made_is_told(home: Home) -> None:
    (home.directory / "file").write_text("not a directory")
    home.set("ca", state_dir=home.directory / "file" / "ca")
    ca = home.start("ca")
    assert ca.end() in (USAGE, UNREACHABLE, REFUSED)
    clear(ca.told(), str(home.directory / "file"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_state_directory_without_permission_is_told(home: Home) -> None:
    locked = home.directory / "ca"
    locked.mkdir(mode=0o500)
    home.set("ca", state_dir=locked / "deep")
    ca = home.start("ca")
    assert ca.end() in (UNREACHABLE, REFUSED)
    clear(ca.told(), str(locked))
    locked.chmod(0o700)
    home.start("ca").up()


# Disk


def no_room(ca: Role) -> None:
    """RLIMIT_FSIZE stands for the full disk: from now on no file of this process can take another byte."""
    resource.prlimit(ca.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))


def room_again(ca: Role) -> None:
    resource.prlimit(ca.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


@pytest.mark.parametrize("full", ["state", "state and log"])
def test_a_full_disk_refuses_writes_clearly_loses_nothing_and_ends_with_the_shortage(home: Home, full: str) -> None:
    """Where not even an audit record can be written, nothing is done that would need one."""
    ca = home.start("ca", log_by_pipe=full == "state").up()
    assert home.admin("entry", "create", *ENTRY).returncode == 0
    no_room(ca)
    lost = ("entry", "create", "--spiffe-id", "spiffe://faults.test/lost", *ENTRY[2:])
    for command in (lost, ("mint", "x509", "spiffe://faults.test/lost")):
        done = home.admin(*command)
        # SPIRE's code for an item of a batch that could not be stored is INTERNAL, which the command tells as 70.
        assert done.returncode in (UNREACHABLE, REFUSED, INTERNAL), (command, done.stdout, done.stderr)
        clear(done.stderr)
        assert re.search("no room|full|too large|disk|could not be written", done.stderr), done.stderr
    if full == "state":
        assert "spiffe://faults.test/kept" in home.admin("entry", "list").stdout  # reading goes on
    room_again(ca)
    wait_until(lambda: home.admin("mint", "x509", "spiffe://faults.test/again").returncode == 0, 20, "it mints again")
    listed = home.admin("entry", "list").stdout
    assert "spiffe://faults.test/kept" in listed
    assert "spiffe://faults.test/lost" not in listed


class Kept:
    """A CA that has run and was stopped, and a copy of its state."""

    def __init__(self, home: Home) -> None:
        self.home, self.state, self.copy = home, home.directory / "ca", home.directory / "copy"
        ca = home.start("ca").up()
        assert home.admin("entry", "create", *ENTRY).returncode == 0
        self.bundle = home.admin("bundle", "show", "--format", "pem").stdout
        assert ca.stop() == 0
        shutil.copytree(self.state, self.copy)

    def restore(self) -> None:
        """Put the copy back."""
        shutil.rmtree(self.state)
        shutil.copytree(self.copy, self.state)

    def is_told(self, *names: str) -> None:
        """A start fails, and says why."""
        ca = self.home.start("ca")
        assert not ca.ready, "it started all the same"
        assert ca.end() in (USAGE, UNREACHABLE, REFUSED), ca.told()
        clear(ca.told(), *names)

    def starts_as_before(self) -> None:
        """It has the authorities and entries that it had."""
        self.home.start("ca").up()
        assert self.home.admin("bundle", "show", "--format", "pem").stdout == self.bundle
        assert "spiffe://faults.test/kept" in self.home.admin("entry", "list").stdout


def test_a_damaged_state_is_told_left_alone_and_its_copy_starts_again(home: Home) -> None:
    """Each in turn: the database cut short, zeroed at its head, emptied; a key; the key that encrypts the keys."""
    kept = Kept(home)
    database, key_of_keys = kept.state / "ca.sqlite", kept.state / "key-encryption.key"
    a_key = min((kept.state / "keys").iterdir())
    whole = {path: path.read_bytes() for path in (database, key_of_keys, a_key)}
    for file, damaged, named in (
        (database, whole[database][: len(whole[database]) // 2], str(database)),
        (database, bytes(4096) + whole[database][4096:], str(database)),
        (database, b"", str(database)),
        (a_key, whole[a_key][:-20] + bytes(20), "key"),
        (key_of_keys, bytes(len(whole[key_of_keys])), "key"),
    ):
        file.write_bytes(damaged)
        kept.is_told(named)
        assert file.read_bytes() == damaged, "what is left of it was touched"
        kept.restore()
    kept.starts_as_before()
