"""Waiting for agents: whom it tells of, when it ends and how; against a CA and a clock that are lists."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta

import click
import pytest

from livery.wire import livery_api, types_api
from livery_cli.exits import Exit
from livery_cli.peers import delivery
from livery_cli.peers.client import Unreachable
from livery_cli.peers.delivery import wait_until_delivered, waits_for_agents
from livery_cli.terminal.options import ca_socket_option, timeout_option

Answer = livery_api.GetDeliveryResponse
AWAY = Unreachable("the CA did not answer")


def answer(latest: int, **agents: bool) -> Answer:
    def one(name: str, has_it: bool) -> livery_api.AgentDelivery:
        return livery_api.AgentDelivery(id=types_api.SPIFFEID(trust_domain="td", path=f"/{name}"), has_it=has_it)

    return Answer(latest_sequence=latest, agents=[one(*agent) for agent in agents.items()])


class Ca:
    """Answers with one of `answers` after the other, the last one again and again; notes what it was asked."""

    def __init__(self, *answers: Answer | Unreachable) -> None:
        self._answers = list(answers)
        self.asked: list[int] = []
        self.now = 0.0

    def ask(self, sequence: int) -> Answer:
        self.asked.append(sequence)
        found = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(found, Unreachable):
            raise found
        return found

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def wait(self, seconds: float = 5) -> Exit:
        patience = timedelta(seconds=seconds)
        return wait_until_delivered(self.ask, patience, sleep=self.sleep, monotonic=lambda: self.now)


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Callable[[], Sequence[str]]:
    """What went to standard error; standard output belongs to the command that waits."""

    def lines() -> Sequence[str]:
        captured = capsys.readouterr()
        assert captured.out == ""
        return captured.err.splitlines()

    return lines


def test_each_agent_is_named_once_when_it_has_it(told: Callable[[], Sequence[str]]) -> None:
    ca = Ca(answer(7, a=False, b=True), answer(7, a=False, b=True), answer(9, a=True, b=True))
    assert ca.wait() == Exit.DONE
    assert told() == ["has it: spiffe://td/b", "has it: spiffe://td/a", "every live agent has it"]


def test_it_waits_for_the_change_that_was_the_latest_at_first(told: Callable[[], Sequence[str]]) -> None:
    """Others go on writing: their changes are not waited for."""
    ca = Ca(answer(7, a=False), answer(8, a=False), answer(9, a=True))
    assert ca.wait() == Exit.DONE
    assert ca.asked == [0, 7, 7]


def test_an_agent_that_is_gone_is_not_waited_for(told: Callable[[], Sequence[str]]) -> None:
    assert Ca(answer(7, a=False, b=True), answer(7, b=True)).wait() == Exit.DONE


def test_without_agents_there_is_nobody_to_wait_for(told: Callable[[], Sequence[str]]) -> None:
    assert Ca(answer(7)).wait() == Exit.DONE
    assert told() == ["no agent is live; whoever attests gets it"]


def test_when_the_time_is_over_each_agent_without_it_is_named(told: Callable[[], Sequence[str]]) -> None:
    ca = Ca(answer(7, c=False, a=False, b=True))
    assert ca.wait(5) == Exit.NO
    assert told()[-2:] == ["does not have it: spiffe://td/a", "does not have it: spiffe://td/c"]
    assert 5 <= ca.now < 6


def test_a_ca_that_is_away_meanwhile_is_asked_again(told: Callable[[], Sequence[str]]) -> None:
    assert Ca(answer(7, a=False), AWAY, AWAY, answer(7, a=True)).wait() == Exit.DONE


def test_a_ca_that_went_away_right_after_the_change_is_asked_again(told: Callable[[], Sequence[str]]) -> None:
    """The change was made: that is not to be told as a failure."""
    ca = Ca(AWAY, answer(7, a=False), answer(8, a=True))
    assert ca.wait() == Exit.DONE
    assert ca.asked == [0, 0, 7]


def test_a_ca_that_stays_away_is_the_error(told: Callable[[], Sequence[str]]) -> None:
    ca = Ca(answer(7, a=False), AWAY)
    with pytest.raises(Unreachable):
        ca.wait(5)
    assert 5 <= ca.now < 6


@pytest.mark.parametrize(
    ("arguments", "steps"),
    [
        ([], ["changed"]),
        (["--wait"], ["asked 10", "changed", "waited 60"]),
        (["--wait", "--timeout", "10s"], ["asked 10", "changed", "waited 10"]),
        (["--wait", "--timeout", "2m"], ["asked 120", "changed", "waited 120"]),
        (["--wait", "--no"], ["asked 10", "changed"]),
    ],
)
def test_it_waits_a_minute_or_as_long_as_it_was_told(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], steps: list[str]
) -> None:
    """Whether the server can tell at all is asked before anything is changed; a change that came to nothing is not
    waited for."""
    done: list[str] = []

    @click.command()
    @click.option("--no", is_flag=True)
    @ca_socket_option
    @timeout_option
    @waits_for_agents
    def change(no: bool, ca_socket: str, timeout: timedelta) -> int | None:
        done.append("changed")
        return Exit.NO if no else None

    def get_delivery(peer: object, sequence: int, timeout: timedelta) -> Answer:
        done.append(f"asked {timeout.total_seconds():.0f}")
        return answer(7)

    def wait(ask: object, patience: timedelta) -> Exit:
        done.append(f"waited {patience.total_seconds():.0f}")
        return Exit.DONE

    monkeypatch.setattr(delivery, "get_delivery", get_delivery)
    monkeypatch.setattr(delivery, "wait_until_delivered", wait)
    code = change.main(arguments, standalone_mode=False)
    assert code == (Exit.NO if "--no" in arguments else None if "--wait" not in arguments else Exit.DONE)
    assert done == steps
