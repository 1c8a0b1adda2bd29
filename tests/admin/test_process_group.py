"""Joining the processes of a training: an environment that is not as ``torchrun`` makes it is named in one line."""

from __future__ import annotations

import socket

import pytest

from config.errors import UserError
from ltr.admin.process_group import start_process_group

WHOLE = {
    "WORLD_SIZE": "2",
    "RANK": "0",
    "LOCAL_RANK": "0",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29500",
}


@pytest.mark.parametrize(
    "wrong, says",
    [
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two', not a number from 1"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE is '0', not a number from 1"),
        ({"LOCAL_RANK": "-1"}, "LOCAL_RANK is '-1', not a number from 0"),
        ({"RANK": None}, "RANK is '', not a number from 0 to 1: start several processes by torchrun"),
        ({"RANK": "2"}, "RANK is '2', not a number from 0 to 1"),
        ({"MASTER_ADDR": None}, "MASTER_ADDR is not set: .* or unset WORLD_SIZE"),
        ({"MASTER_PORT": "70000"}, "MASTER_PORT is '70000', not a number from 0 to 65535"),
    ],
)
def test_a_broken_environment_is_named(monkeypatch, wrong, says):
    for name, value in (WHOLE | wrong).items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=f"^environment variable {says}"):
        start_process_group("cpu")


def test_a_port_that_is_taken_is_named(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        for name, value in (WHOLE | {"MASTER_PORT": port}).items():
            monkeypatch.setenv(name, value)
        with pytest.raises(UserError, match=f"cannot meet at 127.0.0.1, port {port} .*in use"):
            start_process_group("cpu")
