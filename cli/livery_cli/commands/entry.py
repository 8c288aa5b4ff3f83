"""`livery entry`: who gets which identity.

Owns: the command forms. Does not own: the rules of an entry (the CA's) or the file form (`entry_file`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from livery.wire import entry_api, types_api
from livery_cli.commands import entry_file
from livery_cli.exits import Exit
from livery_cli.peers.client import Peer, ca_at, channel, check_item, seconds, tell_warnings
from livery_cli.peers.delivery import waits_for_agents
from livery_cli.peers.live_ids import complete_entry_id, complete_parent_id, complete_spiffe_id
from livery_cli.peers.wire_text import entry_row, id_from_wire, id_to_wire, selectors_to_wire
from livery_cli.terminal.options import DURATION, TTL, ca_socket_option, output_option, timeout_option
from livery_cli.terminal.output import Shown, View, one, several, show_done, show_one
from livery_cli.terminal.watching import watchable

VIEW = View(
    {
        "id": "ENTRY ID",
        "spiffe_id": "SPIFFE ID",
        "parent_id": "PARENT",
        "selectors": "SELECTORS",
        "x509_svid_ttl": "TTL",
        "hint": "HINT",
    },
    name="id",
)
_PAGE = 500


@click.group()
def entry() -> None:
    """Registration entries: who gets which identity."""


def _fields(command: Callable[..., object]) -> Callable[..., object]:
    """The options that describe an entry, for create and update alike."""
    options = [
        click.option(
            "--spiffe-id",
            required=True,
            shell_complete=complete_spiffe_id,
            help="The identity a matching workload gets.",
        ),
        click.option(
            "--parent-id",
            required=True,
            shell_complete=complete_parent_id,
            help="The agent (or other identity) it is given through.",
        ),
        click.option(
            "--selector", "selectors", multiple=True, required=True, help="Such as unix:uid:1000; repeat for each."
        ),
        click.option("--x509-svid-ttl", type=TTL, help="Life of its X.509-SVIDs; the CA's default if left out."),
        click.option("--jwt-svid-ttl", type=TTL, help="Life of its JWT-SVIDs; the CA's default if left out."),
        click.option("--dns", "dns_names", multiple=True, help="A DNS name in its certificates; repeat for each."),
        click.option("--federates-with", multiple=True, help="A trust domain whose bundle it also gets."),
        click.option("--hint", default="", help="Tells two identities of one workload apart."),
        click.option("--admin/--no-admin", default=False, help="May administer the CA."),
        click.option("--downstream/--no-downstream", default=False, help="May run a nested CA."),
        click.option("--expires-in", type=DURATION, help="Remove the entry after this long."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def _entry(fields: dict[str, object]) -> types_api.Entry:
    """The wire form of what the options say."""
    wire = types_api.Entry(
        spiffe_id=id_to_wire(str(fields["spiffe_id"])),
        parent_id=id_to_wire(str(fields["parent_id"])),
        selectors=selectors_to_wire(_texts(fields["selectors"])),
        dns_names=_texts(fields["dns_names"]),
        federates_with=_texts(fields["federates_with"]),
        hint=str(fields["hint"]),
        admin=bool(fields["admin"]),
        downstream=bool(fields["downstream"]),
    )
    for name in ("x509_svid_ttl", "jwt_svid_ttl"):
        value = fields[name]
        if isinstance(value, timedelta):
            setattr(wire, name, int(value.total_seconds()))
    expires_in = fields["expires_in"]
    if isinstance(expires_in, timedelta):
        wire.expires_at = int((datetime.now(UTC) + expires_in).timestamp())
    return wire


def _texts(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, (tuple, list)) else []


@entry.command()
@_fields
@click.option("--entry-id", default="", help="Its id; the CA makes one if left out.")
@ca_socket_option
@timeout_option
@output_option
@waits_for_agents
def create(entry_id: str, ca_socket: str, timeout: timedelta, output: str, **fields: object) -> None:
    """Create an entry."""
    wire = _entry(fields)
    wire.id = entry_id
    peer = ca_at(ca_socket)
    with channel(peer) as opened:
        request = entry_api.BatchCreateEntryRequest(entries=[wire])
        answer, call = entry_api.EntryStub(opened).BatchCreateEntry.with_call(request, timeout=seconds(timeout))
    (result,) = answer.results
    # The CA shows the one that stands in the way.
    of = f" ({result.entry.id})" if result.status.code and result.entry.id else ""
    check_item(result.status.code, result.status.message + of, peer)
    tell_warnings(call)
    show_one(entry_row(result.entry), VIEW, output)


@entry.command()
@click.argument("entry_id", shell_complete=complete_entry_id)
@_fields
@ca_socket_option
@timeout_option
@output_option
@waits_for_agents
def update(entry_id: str, ca_socket: str, timeout: timedelta, output: str, **fields: object) -> None:
    """Replace the entry ENTRY_ID with what the options say."""
    wire = _entry(fields)
    wire.id = entry_id
    peer = ca_at(ca_socket)
    with channel(peer) as opened:
        request = entry_api.BatchUpdateEntryRequest(entries=[wire])
        answer, call = entry_api.EntryStub(opened).BatchUpdateEntry.with_call(request, timeout=seconds(timeout))
    (result,) = answer.results
    check_item(result.status.code, f"{entry_id}: {result.status.message}", peer)
    tell_warnings(call)
    show_one(entry_row(result.entry), VIEW, output)


@entry.command("list")
@click.option("--spiffe-id", shell_complete=complete_spiffe_id, help="Only entries of this identity.")
@click.option("--parent-id", shell_complete=complete_parent_id, help="Only entries given through this parent.")
@click.option("--selector", "selectors", multiple=True, help="Only entries whose selectors are within these.")
@click.option("--hint", help="Only entries with this hint.")
@ca_socket_option
@timeout_option
@output_option
@watchable
def list_(ca_socket: str, timeout: timedelta, **wanted: object) -> Shown:
    """List entries."""
    found = all_entries(ca_at(ca_socket), _filter(wanted), timeout)
    return several([entry_row(each) for each in found], VIEW)


def _filter(wanted: dict[str, object]) -> entry_api.ListEntriesRequest.Filter:
    criteria = entry_api.ListEntriesRequest.Filter()
    if wanted["spiffe_id"]:
        criteria.by_spiffe_id.CopyFrom(id_to_wire(str(wanted["spiffe_id"])))
    if wanted["parent_id"]:
        criteria.by_parent_id.CopyFrom(id_to_wire(str(wanted["parent_id"])))
    if wanted["selectors"]:
        criteria.by_selectors.selectors.extend(selectors_to_wire(_texts(wanted["selectors"])))
        criteria.by_selectors.match = types_api.SelectorMatch.MATCH_SUBSET
    if wanted["hint"]:
        criteria.by_hint.value = str(wanted["hint"])
    return criteria


def all_entries(
    peer: Peer, criteria: entry_api.ListEntriesRequest.Filter, timeout: timedelta
) -> Iterator[types_api.Entry]:
    """Every matching entry, page by page, so that no answer outgrows a message."""
    with channel(peer) as opened:
        stub = entry_api.EntryStub(opened)
        token = ""
        while True:
            request = entry_api.ListEntriesRequest(filter=criteria, page_size=_PAGE, page_token=token)
            page = stub.ListEntries(request, timeout=seconds(timeout))
            yield from page.entries
            token = page.next_page_token
            if not token:
                return


@entry.command("show")
@click.argument("entry_id", shell_complete=complete_entry_id)
@ca_socket_option
@timeout_option
@output_option
@watchable
def show_(entry_id: str, ca_socket: str, timeout: timedelta) -> Shown:
    """Show one entry."""
    with channel(ca_at(ca_socket)) as opened:
        request = entry_api.GetEntryRequest(id=entry_id)
        found = entry_api.EntryStub(opened).GetEntry(request, timeout=seconds(timeout))
    return one(entry_row(found), VIEW)


@entry.command()
@click.argument("entry_ids", nargs=-1, required=True, shell_complete=complete_entry_id)
@ca_socket_option
@timeout_option
@output_option
@waits_for_agents
def delete(entry_ids: tuple[str, ...], ca_socket: str, timeout: timedelta, output: str) -> None:
    """Delete entries; their identities are not renewed again."""
    peer = ca_at(ca_socket)
    with channel(peer) as opened:
        request = entry_api.BatchDeleteEntryRequest(ids=entry_ids)
        results = entry_api.EntryStub(opened).BatchDeleteEntry(request, timeout=seconds(timeout)).results
    show_done("deleted", [result.id for result in results if result.status.code == 0], output)
    for result in results:
        check_item(result.status.code, f"{result.id or 'an entry'}: {result.status.message}", peer)


@entry.command()
@click.option(
    "-f",
    "--file",
    "path",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
    required=True,
    help="The file; - is standard input.",
)
@click.option(
    "--prune/--no-prune", default=False, help="Delete entries under the file's parents that it does not name."
)
@click.option("--dry-run/--no-dry-run", default=False, help="Say what would change; exit 1 if anything would.")
@ca_socket_option
@timeout_option
@output_option
@waits_for_agents
def apply(path: Path, prune: bool, dry_run: bool, ca_socket: str, timeout: timedelta, output: str) -> int:
    """Make the CA's entries those of a TOML file of `[[entry]]` tables.

    Where the CA refuses a change, others may have been made: mend the file and apply it again.
    """
    wanted = entry_file.read(Path("/dev/stdin") if str(path) == "-" else path)
    peer = ca_at(ca_socket)
    existing = list(all_entries(peer, entry_api.ListEntriesRequest.Filter(), timeout))
    plan = entry_file.plan(wanted, existing, prune=prune)
    plan.shown().show(output)
    if dry_run:
        return Exit.NO if plan else Exit.DONE
    with channel(peer) as opened:
        stub = entry_api.EntryStub(opened)
        for entry, status in entry_file.carry_out(plan, stub, seconds(timeout)):
            check_item(status.code, f"{id_from_wire(entry.spiffe_id)}: {status.message}", peer)
    return Exit.DONE
