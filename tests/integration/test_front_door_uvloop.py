"""The same door on the loop it runs on in production; everywhere else these scenarios run on asyncio's own."""

from __future__ import annotations

import asyncio

import pytest
import uvloop

from tests.integration import test_front_door

SCENARIOS = [
    test_front_door.test_the_pid_and_uid_of_a_local_caller_arrive,
    test_front_door.test_callers_with_and_without_a_certificate_come_in_by_one_port,
    test_front_door.test_every_kind_of_call_knows_its_caller,
    test_front_door.test_large_messages_pass_whole_in_both_directions,
    test_front_door.test_a_message_over_the_limit_is_refused_and_its_connection_goes_on,
    test_front_door.test_a_cancelled_call_is_cancelled_behind_the_door_too,
    test_front_door.test_a_stopped_door_leaves_nothing_behind,
    test_front_door.test_calls_under_way_may_end_within_the_grace,
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_on_uvloop(scenario, tmp_path):
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario(tmp_path))
