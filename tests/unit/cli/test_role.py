"""What a role says to whoever started it."""

from __future__ import annotations

import json
import os

import pytest

from livery.errors import LiveryError
from livery_cli.role import Announcement


def test_it_says_one_line_be_it_that_it_serves_or_why_not() -> None:
    reader, writer = os.pipe()
    announcement = Announcement(writer)
    announcement.ready({"address": "here"})
    announcement.failed(LiveryError("it ended"))
    announcement.close()
    with os.fdopen(reader) as said:
        assert json.loads(said.read()) == {"address": "here"}


@pytest.mark.parametrize("error", [None, LiveryError("the port is taken")])
def test_one_whose_parent_was_killed_meanwhile_does_not_fail_by_that(error: LiveryError | None) -> None:
    """It ends by its leash. What it would be told to have failed by is not what happened."""
    reader, writer = os.pipe()
    os.close(reader)
    announcement = Announcement(writer)
    if error is None:
        announcement.ready({"address": "here"})
    else:
        announcement.failed(error)
    announcement.close()
