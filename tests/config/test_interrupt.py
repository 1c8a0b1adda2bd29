"""Signals that wait for the work to be whole."""

from __future__ import annotations

import signal
import time

import pytest

from config import interrupt


@pytest.fixture
def told():
    """What handles signals, over handlers that raise."""

    def terminate(*_: object) -> None:
        raise SystemExit(143)

    before = [
        signal.signal(signal.SIGINT, signal.default_int_handler),
        signal.signal(signal.SIGTERM, terminate),
    ]
    yield interrupt.Interrupt()
    signal.signal(signal.SIGINT, before[0])
    signal.signal(signal.SIGTERM, before[1])


def test_the_echo_of_a_sigterm_counts_once_and_a_later_one_is_obeyed(told, monkeypatch):
    monkeypatch.setattr(interrupt, "_ECHO_SECONDS", 0.05)
    with pytest.raises(SystemExit), told:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert told()
        time.sleep(0.1)
        signal.raise_signal(signal.SIGTERM)
        pytest.fail("the later signal was not obeyed")
    with pytest.raises(SystemExit):
        told.pass_on()


def test_any_other_second_signal_is_obeyed_at_once(told):
    with pytest.raises(KeyboardInterrupt), told:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("Ctrl-C was not obeyed")
