"""Each client command against a running `livery up`: what it prints, its JSON, and its exit code.

Exit codes, as `docs/cli.md` has them: 0 done, 1 the answer is no, 2 wrong usage, 3 unreachable, 4 refused or not found.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from tests.e2e.running import LIVERY, Up, livery, wait_until
from tests.e2e.workloads import agent_id, selectors_of

Done = subprocess.CompletedProcess[str]
DONE, NO, USAGE, UNREACHABLE, REFUSED, INTERRUPTED = 0, 1, 2, 3, 4, 130


def told(done: Done) -> Any:
    """The JSON of a command that went well."""
    assert done.returncode == DONE, done.stderr
    return json.loads(done.stdout)


def documented(command: str) -> set[str]:
    """The keys that `docs/cli.md` gives to this command's JSON."""
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text("utf-8")
    (cell,) = re.findall(rf"^\| `{command}[`,].* \| (.*) \|$", page, re.MULTILINE)
    return set(re.findall(r"`([a-z0-9_]+)`", cell))


def says_what_and_why(done: Done, code: int) -> None:
    """A failing command ends with this code and says what, and why or what to do; never a traceback."""
    assert done.returncode == code, (done.stdout, done.stderr)
    assert done.stderr.startswith(("error: ", "Usage: ", "Error: ")), done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def domain(up: Up) -> str:
    return f"spiffe://{up.ready['trust_domain']}"


@pytest.fixture(scope="module")
def agent(up: Up) -> str:
    return agent_id(up)


# entry


def test_an_entry_is_created_shown_listed_updated_and_deleted(up: Up, domain: str, agent: str) -> None:
    fields = ["--spiffe-id", f"{domain}/batch", "--parent-id", agent, "--selector", "unix:uid:54321"]
    made = told(
        up.livery("entry", "create", *fields, "--x509-svid-ttl", "90s", "--dns", "batch", "--hint", "b", "-o", "json")
    )
    assert made["spiffe_id"] == f"{domain}/batch"
    assert made["selectors"] == ["unix:uid:54321"]
    assert (made["x509_svid_ttl"], made["dns_names"], made["hint"]) == (90, ["batch"], "b")
    assert set(made) == documented("entry list")

    assert told(up.livery("entry", "show", made["id"], "-o", "json")) == made
    assert [made] == told(up.livery("entry", "list", "--spiffe-id", f"{domain}/batch", "-o", "json"))
    assert up.livery("entry", "list", "--parent-id", agent, "-o", "name").stdout.split().count(made["id"]) == 1
    table = up.livery("entry", "list", "--hint", "b")
    assert table.returncode == DONE
    assert "SPIFFE ID" in table.stdout
    assert made["id"] in table.stdout

    changed = told(up.livery("entry", "update", made["id"], *fields, "--x509-svid-ttl", "2m", "-o", "json"))
    assert (changed["id"], changed["x509_svid_ttl"], changed["hint"]) == (made["id"], 120, "")
    assert changed["revision"] == made["revision"] + 1

    (deleted,) = told(up.livery("entry", "delete", made["id"], "-o", "json"))
    assert deleted == {"id": made["id"], "done": "deleted"}
    assert set(deleted) == documented("entry delete")
    says_what_and_why(up.livery("entry", "show", made["id"]), REFUSED)
    says_what_and_why(up.livery("entry", "delete", made["id"]), REFUSED)
    assert told(up.livery("entry", "list", "--spiffe-id", f"{domain}/batch", "-o", "json")) == []


def test_the_same_entry_twice_is_a_conflict(up: Up, domain: str, agent: str) -> None:
    fields = ["--spiffe-id", f"{domain}/twice", "--parent-id", agent, "--selector", "unix:uid:54322"]
    assert up.livery("entry", "create", *fields).returncode == DONE
    again = up.livery("entry", "create", *fields)
    says_what_and_why(again, REFUSED)
    assert up.livery("entry", "list", "--spiffe-id", f"{domain}/twice", "-o", "name").stdout.strip() in again.stderr


def test_to_federate_with_a_stranger_is_refused_as_not_found(up: Up, domain: str, agent: str) -> None:
    fields = ["--spiffe-id", f"{domain}/fed", "--parent-id", agent, "--selector", "unix:uid:54397"]
    done = up.livery("entry", "create", *fields, "--federates-with", "elsewhere.test")
    says_what_and_why(done, REFUSED)
    assert "elsewhere.test" in done.stderr


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--spiffe-id", "http://example.org/x"),
        ("--spiffe-id", "spiffe://elsewhere.test/x"),
        ("--spiffe-id", "spiffe://UPPER/x"),
        ("--parent-id", "nobody"),
        ("--selector", "no-colon"),
        ("--x509-svid-ttl", "soon"),
        ("--dns", "not a name"),
    ],
)
def test_a_wrong_field_of_an_entry_is_wrong_usage(up: Up, domain: str, agent: str, option: str, value: str) -> None:
    fields = {"--spiffe-id": f"{domain}/x", "--parent-id": agent, "--selector": "unix:uid:1"} | {option: value}
    done = up.livery("entry", "create", *(word for field in fields.items() for word in field))
    says_what_and_why(done, USAGE)


def test_what_was_waited_for_is_there(up: Up, domain: str, agent: str, tmp_path: Path) -> None:
    """An entry that its agent has been given is an identity that can be fetched, and one that was deleted is none."""
    fields = ("--spiffe-id", f"{domain}/waited", "--parent-id", agent, *selectors_of())
    made = up.livery("entry", "create", *fields, "--wait", "-o", "name")
    assert made.returncode == DONE, made.stderr
    assert made.stderr.splitlines() == [f"has it: {agent}", "every live agent has it"]
    fetched = up.livery("svid", "x509", "fetch", "--spiffe-id", f"{domain}/waited")
    assert fetched.returncode == DONE, fetched.stderr
    assert up.livery("entry", "update", made.stdout.strip(), *fields, "--hint", "h", "--wait").returncode == DONE
    assert told(up.livery("svid", "x509", "fetch", "--spiffe-id", f"{domain}/waited", "-o", "json"))
    assert up.livery("entry", "delete", made.stdout.strip(), "--wait").returncode == DONE
    says_what_and_why(up.livery("svid", "x509", "fetch", "--spiffe-id", f"{domain}/waited"), REFUSED)


def test_a_watched_list_is_shown_again_when_it_has_changed(up: Up, domain: str, agent: str) -> None:
    """One line of JSON for each change, and 130 at Ctrl-C."""
    looking = ("entry", "list", "--spiffe-id", f"{domain}/watched", "--watch", "--interval", "100ms", "-o", "json")
    command = [*LIVERY, *looking]
    with subprocess.Popen(
        command, env=up.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as watching:
        assert watching.stdout is not None
        assert watching.stderr is not None
        assert json.loads(watching.stdout.readline()) == []
        fields = ("--spiffe-id", f"{domain}/watched", "--parent-id", agent, "--selector", "unix:uid:54323")
        made = told(up.livery("entry", "create", *fields, "-o", "json"))
        assert json.loads(watching.stdout.readline()) == [made]
        assert up.livery("entry", "delete", made["id"]).returncode == DONE
        assert json.loads(watching.stdout.readline()) == []
        watching.send_signal(signal.SIGINT)
        assert watching.wait(20) == INTERRUPTED
        assert (watching.stdout.read(), watching.stderr.read().strip()) == ("", "interrupted")


def test_a_file_of_entries_is_planned_applied_and_pruned(up: Up, domain: str, tmp_path: Path) -> None:
    parent = f"{domain}/fleet"
    file = tmp_path / "entries.toml"

    def write(*names: str) -> None:
        table = '[[entry]]\nspiffe_id = "{0}/{1}"\nparent_id = "{2}"\nselectors = ["unix:user:{1}"]\n'
        file.write_text("\n".join(table.format(domain, name, parent) for name in names))

    def names() -> set[str]:
        listed = told(up.livery("entry", "list", "--parent-id", parent, "-o", "json"))
        return {entry["spiffe_id"].rpartition("/")[2] for entry in listed}

    write("red", "green")
    dry = up.livery("entry", "apply", "-f", str(file), "--dry-run")
    assert (dry.returncode, dry.stdout.count("+ "), names()) == (NO, 2, set())
    assert up.livery("entry", "apply", "-f", str(file)).returncode == DONE
    again = up.livery("entry", "apply", "-f", str(file), "--dry-run")
    assert (again.returncode, again.stdout, names()) == (DONE, "nothing to change\n", {"red", "green"})
    write("green", "blue")
    (change,) = told(up.livery("entry", "apply", "-f", str(file), "-o", "json"))
    assert (change["change"], change["spiffe_id"]) == ("create", f"{domain}/blue")
    assert set(change) <= documented("entry apply")
    assert names() == {"red", "green", "blue"}
    assert up.livery("entry", "apply", "-f", str(file), "--prune").returncode == DONE
    assert names() == {"green", "blue"}
    file.write_text('[[entry]]\nspife_id = "x"\n')
    says_what_and_why(up.livery("entry", "apply", "-f", str(file)), USAGE)


def test_a_file_of_entries_may_come_from_a_pipe_and_what_is_refused_is_named(up: Up, domain: str) -> None:
    table = '[[entry]]\nspiffe_id = "{}"\nparent_id = "{}/piped"\nselectors = ["unix:uid:54398"]\n'
    good, bad = table.format(f"{domain}/piped", domain), table.format("spiffe://elsewhere.test/x", domain)
    done = up.livery_with(good, "entry", "apply", "-f", "-", "-o", "name")
    assert (done.returncode, done.stdout.strip()) == (DONE, f"{domain}/piped")
    refused = up.livery_with(good + bad, "entry", "apply", "-f", "-")
    says_what_and_why(refused, USAGE)
    assert "spiffe://elsewhere.test/x: " in refused.stderr


def test_an_entry_that_proves_little_is_made_with_a_warning(up: Up, domain: str, agent: str, tmp_path: Path) -> None:
    fields = ["--spiffe-id", f"{domain}/weak", "--parent-id", agent, "--selector", "unix:path:/usr/bin/weak"]
    made = up.livery("entry", "create", *fields, "-o", "name")
    assert made.returncode == DONE
    assert made.stderr.startswith("warning: unix:path")
    assert len(made.stdout.splitlines()) == 1, "what a script reads is the id alone"
    assert "warning:" in up.livery("entry", "update", made.stdout.strip(), *fields, "--hint", "h").stderr
    file = tmp_path / "entries.toml"
    file.write_text(
        f'[[entry]]\nspiffe_id = "{domain}/weaker"\nparent_id = "{agent}"\nselectors = ["unix:path:/usr/bin/weaker"]\n'
    )
    assert "warning:" in up.livery("entry", "apply", "-f", str(file)).stderr
    strong = up.livery("entry", "create", *fields, "--selector", "unix:uid:54399")
    assert (strong.returncode, strong.stderr) == (DONE, "")


# node and token


def test_the_agent_of_this_machine_is_listed_and_shown(up: Up, agent: str) -> None:
    (row,) = told(up.livery("node", "list", "--attested-by", "x509pop", "-o", "json"))
    assert row["id"] == agent
    assert set(row) == documented("node list")
    assert (row["can_reattest"], row["banned"]) == (True, False)
    assert row["serial_number"] == told(up.livery("inspect", "-o", "json"))["node"]["serial"], "one number, one form"
    assert told(up.livery("node", "show", agent, "-o", "json"))["id"] == agent
    assert told(up.livery("node", "list", "--banned", "-o", "json")) == []
    says_what_and_why(up.livery("node", "show", agent + "0"), REFUSED)


def test_a_join_token_is_printed_once_and_stands_in_no_log(up: Up, domain: str, tmp_path: Path) -> None:
    """Kept in a file of ours, so that the search over all logs knows it when the run is over."""
    made = told(up.livery("token", "create", "--ttl", "1m", "--spiffe-id", f"{domain}/laptop", "-o", "json"))
    kept = tmp_path / "join.token"
    kept.write_text(made["token"])
    kept.chmod(0o600)
    assert len(made["token"]) >= 32
    assert set(made) == documented("token create")
    name = up.livery("token", "create", "-o", "name").stdout.strip()
    assert re.fullmatch(r"[A-Za-z0-9-]{32,}", name)
    assert name != made["token"]
    assert not [log for log in (up.state / "logs").glob("*.log") if made["token"] in log.read_text()]
    says_what_and_why(up.livery("token", "create", "--ttl", "-5m"), USAGE)


# bundle


def test_the_bundle_is_shown_in_both_forms_and_listed(up: Up) -> None:
    document = json.loads(up.livery("bundle", "show").stdout)
    assert {key["use"] for key in document["keys"]} == {"x509-svid", "jwt-svid"}
    (root,) = x509.load_pem_x509_certificates(up.livery("bundle", "show", "--format", "pem").stdout.encode())
    (row,) = told(up.livery("bundle", "list", "-o", "json"))
    assert row["trust_domain"] == up.ready["trust_domain"]
    assert row["sequence"] == document["spiffe_sequence"]
    assert set(row) == documented("bundle list")
    ski = root.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest.hex()
    assert row["x509_authorities"] == [ski]


# mint


def test_an_administrator_mints_an_x509_svid(up: Up, domain: str, tmp_path: Path) -> None:
    minted = told(
        up.livery(
            "mint", "x509", f"{domain}/once", "--ttl", "5m", "--dns", "once", "--write", str(tmp_path), "-o", "json"
        )
    )
    assert minted["spiffe_id"] == f"{domain}/once"
    assert set(minted) <= documented("mint x509")
    leaf = x509.load_pem_x509_certificate((tmp_path / "svid.pem").read_bytes())
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [f"{domain}/once"]
    assert names.get_values_for_type(x509.DNSName) == ["once"]
    key = serialization.load_pem_private_key((tmp_path / "key.pem").read_bytes(), None)
    assert key.public_key() == leaf.public_key()
    assert (tmp_path / "bundle.pem").read_text() == up.livery("bundle", "show", "--format", "pem").stdout
    assert "PRIVATE KEY" not in json.dumps(minted)
    says_what_and_why(up.livery("mint", "x509", "spiffe://elsewhere.test/once"), USAGE)


def test_an_administrator_mints_a_jwt_svid(up: Up, domain: str) -> None:
    minted = told(up.livery("mint", "jwt", f"{domain}/once", "--audience", "billing", "-o", "json"))
    assert minted["spiffe_id"] == f"{domain}/once"
    assert set(minted) == documented("mint jwt")
    valid = told(up.livery_with(minted["token"], "svid", "jwt", "validate", "--audience", "billing", "-o", "json"))
    assert valid["spiffe_id"] == f"{domain}/once"
    assert set(valid) == documented("svid jwt validate")
    assert up.livery("mint", "jwt", f"{domain}/once").returncode == USAGE  # no audience


# svid and inspect


def test_this_program_fetches_its_svids(up: Up, tester: str) -> None:
    rows = told(up.livery("svid", "x509", "fetch", "-o", "json"))
    (row,) = [each for each in rows if each["spiffe_id"] == tester]
    assert 0 < row["expires_in"] <= 30
    assert set(row) <= documented("svid x509 fetch")
    assert tester in up.livery("svid", "x509", "fetch", "-o", "name").stdout.split()
    says_what_and_why(up.livery("svid", "x509", "fetch", "--spiffe-id", tester + "/other"), REFUSED)


def test_this_program_fetches_a_jwt_svid_and_validates_it(up: Up, tester: str) -> None:
    fetched = up.livery("svid", "jwt", "fetch", "--audience", "billing", "--spiffe-id", tester, "-o", "name")
    token = fetched.stdout.strip()
    assert fetched.returncode == DONE, fetched.stderr
    valid = told(up.livery_with(token, "svid", "jwt", "validate", "--audience", "billing", "-o", "json"))
    assert valid["spiffe_id"] == tester
    assert valid["claims"]["aud"] in ("billing", ["billing"])
    wrong = up.livery_with(token, "svid", "jwt", "validate", "--audience", "audit")
    assert (wrong.returncode, wrong.stdout) == (NO, "")
    assert wrong.stderr.startswith("not valid: ")
    for_programs = up.livery_with(token, "svid", "jwt", "validate", "--audience", "audit", "-o", "json")
    said = json.loads(for_programs.stdout)
    assert (for_programs.returncode, said["valid"]) == (NO, False)
    assert set(said) == documented("svid jwt validate")


def test_a_claim_that_is_a_time_is_a_whole_number(up: Up, tester: str) -> None:
    token = up.livery("svid", "jwt", "fetch", "--audience", "billing", "-o", "name").stdout.split()[0]
    shown = up.livery_with(token, "svid", "jwt", "validate", "--audience", "billing", "-o", "json").stdout
    claims = json.loads(shown)["claims"]
    assert (type(claims["exp"]), type(claims["iat"])) == (int, int)
    assert list(claims) == sorted(claims)


def test_an_identity_that_this_program_lacks_is_refused_with_the_way_to_those_it_has(up: Up, tester: str) -> None:
    done = up.livery("svid", "jwt", "fetch", "--audience", "billing", "--spiffe-id", tester + "/other")
    says_what_and_why(done, REFUSED)
    assert "livery svid x509 fetch" in done.stderr


def test_to_wait_for_an_identity_is_to_wait_for_the_agent_too(up: Up, tester: str, tmp_path: Path) -> None:
    short = Path(tempfile.mkdtemp(prefix="lv-late-"))
    late = short / "workload.sock"
    ready = Path(up.ready["spiffe_endpoint_socket"].removeprefix("unix:"))
    started = threading.Timer(1.5, late.symlink_to, [ready])
    started.start()
    try:
        words = ("svid", "x509", "fetch", "--endpoint-socket", f"unix:{late}", "-o", "name")
        assert up.livery(*words).returncode == UNREACHABLE
        assert tester in up.livery(*words, "--wait").stdout.split()
    finally:
        started.join()
        shutil.rmtree(short)


def test_each_rotation_that_is_watched_is_one_line_of_json(up: Up, tester: str) -> None:
    program = [str(Path(sys.executable).parent / "livery"), "svid", "x509", "watch", "-o", "json"]
    with subprocess.Popen(program, env=up.environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as watching:
        assert watching.stdout is not None
        first = json.loads(watching.stdout.readline())
        watching.send_signal(signal.SIGINT)
        assert watching.wait(10) == INTERRUPTED
    assert tester in [row["spiffe_id"] for row in first]


@pytest.mark.parametrize("kind", ["x509", "jwt"])
def test_the_ids_of_this_program_are_completed(up: Up, tester: str, kind: str) -> None:
    words = ["livery", "svid", kind, "fetch", "--spiffe-id", "spiffe", ":", "//"]
    asking = {"COMP_WORDS": "\n".join(words), "COMP_CWORD": str(len(words) - 1), "_LIVERY_COMPLETE": "bash_complete"}
    program = str(Path(sys.executable).parent / "livery")
    done = subprocess.run([program], env=up.environment | asking, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["plain," + tester.removeprefix("spiffe:")]


def test_inspect_tells_every_identity_and_when_it_is_renewed(up: Up, tester: str, domain: str) -> None:
    said = up.livery("inspect", "-o", "json").stdout
    for spiffe_id in (tester, f"{domain}/orders", f"{domain}/inventory"):
        assert spiffe_id in said
    assert "renew" in said
    assert "PRIVATE KEY" not in said
    assert up.livery("inspect").returncode == DONE


# policy


def test_can_says_yes_and_no_by_its_exit_code(up: Up, domain: str) -> None:
    call = (f"{domain}/orders", "{}", f"{domain}/inventory")
    context = ("--context", json.dumps({"http": {"method": "GET", "path": "/stock/apple", "host": "x", "headers": {}}}))
    yes = up.livery("can", *(word.format("http:GET") for word in call), *context, "-o", "json")
    assert yes.returncode == DONE, yes.stdout + yes.stderr
    denied = {"http": {"method": "DELETE", "path": "/stock/apple", "host": "x", "headers": {}}}
    no = up.livery("can", *(word.format("http:DELETE") for word in call), "--context", json.dumps(denied), "-o", "json")
    assert no.returncode == NO, no.stdout + no.stderr
    said = json.loads(no.stdout)
    assert (said["outcome"], bool(said["id"]), bool(said["explanation"])) == ("deny", True, True)
    assert set(said) <= documented("can")
    stranger = up.livery("can", f"{domain}/stranger", "http:GET", f"{domain}/inventory", *context)
    assert stranger.returncode == NO
    nobody = up.livery("can", "nobody", "http:GET", f"{domain}/inventory")
    assert nobody.returncode == NO
    assert "no spiffe:// URI" in nobody.stdout


def test_a_denial_can_be_explained_by_its_decision_id(up: Up) -> None:
    event = up.wait_for(lambda event: event["event"] == "call" and event["outcome"] == "denied", 20)
    for command in (("explain",), ("policy", "explain")):
        explained = up.livery(*command, event["decision_id"], "-o", "json")
        assert explained.returncode == DONE, explained.stderr
        assert event["decision_id"] in explained.stdout
        assert "orders" in explained.stdout
    says_what_and_why(up.livery("explain", "00000000-0000-0000-0000-000000000000"), REFUSED)


def test_policies_are_checked_with_the_place_of_what_is_wrong(up: Up, tmp_path: Path) -> None:
    good = up.livery("policy", "check", str(up.state / "policies"))
    assert good.returncode == DONE, good.stdout + good.stderr
    bad = tmp_path / "bad.cedar"
    bad.write_text('@id("typo")\npermit (principal, action == Livery::Action::"http:GTE", resource);\n')
    wrong = up.livery("policy", "check", str(bad))
    assert wrong.returncode in (NO, USAGE)
    assert "bad.cedar" in wrong.stdout + wrong.stderr
    assert "http:GTE" in wrong.stdout + wrong.stderr


# what holds for all


@pytest.mark.parametrize("role", ["ca", "agent", "policy"])
def test_the_health_of_each_role_is_asked_by_its_socket(up: Up, role: str) -> None:
    done = up.livery(role, "health")
    assert done.returncode == DONE, done.stdout + done.stderr


def test_a_policy_server_with_a_broken_file_says_which_to_its_administrator(up: Up) -> None:
    broken = up.state / "policies" / "broken.cedar"
    broken.write_text("permit")
    try:
        wait_until(lambda: up.livery("policy", "health").returncode == NO, 15, "the broken file is noticed")
        why = json.loads(up.livery("policy", "health", "-o", "json").stdout)["why"]
    finally:
        broken.unlink()
    assert why.startswith("degraded: ")
    assert "broken.cedar:1" in why
    wait_until(lambda: up.livery("policy", "health").returncode == DONE, 15, "it is noticed to be gone")


@pytest.mark.parametrize(
    "command",
    [
        ("entry", "list"),
        ("node", "list"),
        ("bundle", "show"),
        ("token", "create"),
        ("ca", "health"),
        ("svid", "x509", "fetch"),
        ("agent", "health"),
        ("inspect",),
        ("policy", "health"),
        ("can", "spiffe://example.org/a", "http:GET", "spiffe://example.org/b"),
    ],
)
def test_a_command_that_finds_nobody_says_so(tmp_path: Path, command: tuple[str, ...]) -> None:
    names = ("LIVERY_CA_SOCKET", "SPIFFE_ENDPOINT_SOCKET", "LIVERY_AGENT_SOCKET", "LIVERY_POLICY_SOCKET")
    environment = dict.fromkeys(names, f"unix:{tmp_path}/none.sock")
    done = livery(*command, env={"PATH": "/usr/bin", **environment})
    says_what_and_why(done, UNREACHABLE)
    assert f"{tmp_path}/none.sock" in done.stderr
    assert "fix:" in done.stderr


def test_a_banned_agent_serves_on_but_gets_nothing_new(start_up: Any, tmp_path: Path) -> None:
    """Ban and evict, on a run of its own: it ends the agent's standing until it is evicted."""
    up = start_up("--no-demo")
    agent = agent_id(up)
    assert told(up.livery("node", "ban", agent, "-o", "json")) == [{"id": agent, "done": "banned"}]
    assert told(up.livery("node", "show", agent, "-o", "json"))["banned"] is True
    log = up.state / "logs" / "agent.log"
    wait_until(lambda: "banned" in log.read_text(), 40, "the agent hears that it is banned")
    assert up.livery("node", "evict", agent).returncode == DONE
    wait_until(lambda: agent in up.livery("node", "list", "-o", "name").stdout, 60, "the agent has attested again")
    says_what_and_why(up.livery("node", "ban", agent + "0"), REFUSED)
