"""Signals: the first one asks to stop, the second one acts as ever."""

import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

import pytest

from nas.distributed import TORCHRUN_VARIABLES, Ranks, join
from nas.errors import UnusableInput
from nas.stopping import SIGNALS, WARNINGS, StopRequest, ending_at_once, leave_when_stopped

received: list[int] = []


def remember(number: int, frame: FrameType | None) -> None:
    received.append(number)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Handlers that only remember, so that a mistake cannot end the tests."""
    previous = {number: signal.signal(number, remember) for number in SIGNALS}
    previous |= {number: signal.getsignal(number) for number in WARNINGS}
    received.clear()
    yield
    for number, handler in previous.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_asks_and_the_second_acts(number: signal.Signals) -> None:
    with StopRequest(echo=0.0) as request:
        assert not request.requested
        os.kill(os.getpid(), number)
        assert request.requested
        assert received == []
        os.kill(os.getpid(), number)
        assert received == [number]
    assert [signal.getsignal(one) for one in SIGNALS] == [remember] * len(SIGNALS)


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2])
def test_a_schedulers_warning_asks_to_stop(number: signal.Signals) -> None:
    assert number in WARNINGS
    signal.signal(number, signal.SIG_DFL)
    with StopRequest() as request:
        os.kill(os.getpid(), number)
        assert request.requested
    leave_when_stopped()
    with StopRequest() as request:
        os.kill(os.getpid(), number)
        assert request.requested
    assert signal.getsignal(number) is not signal.SIG_DFL


def test_after_a_warning_the_step_has_time_until_the_limit_itself() -> None:
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    before = threading.enumerate()  # a timer that another test has cancelled may take a moment to end

    def timers() -> list[threading.Thread]:
        return [one for one in threading.enumerate() if isinstance(one, threading.Timer) and one not in before]

    with StopRequest(grace=60.0, echo=0.0) as request:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert request.requested
        assert not timers()
        os.kill(os.getpid(), signal.SIGTERM)
        assert received == []  # the first signal of its kind: it has its grace
        assert timers()


def test_a_signal_that_comes_twice_at_once_is_one_request() -> None:
    with StopRequest(echo=60.0) as request:
        for number in (signal.SIGINT, signal.SIGINT, signal.SIGTERM):
            os.kill(os.getpid(), number)
    assert (received, request.requested) == ([], True)


def test_a_handler_of_a_launchers_is_left_alone() -> None:
    signal.signal(signal.SIGUSR2, remember)
    with StopRequest() as request:
        os.kill(os.getpid(), signal.SIGUSR2)
    assert (received, request.requested) == ([signal.SIGUSR2], False)


def test_afterwards_signals_act_as_before() -> None:
    with StopRequest() as request:
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    assert received == [signal.SIGTERM]
    assert not request.requested


def test_an_error_on_the_way_restores_the_handlers() -> None:
    with pytest.raises(KeyError), StopRequest():
        raise KeyError
    assert [signal.getsignal(one) for one in SIGNALS] == [remember] * len(SIGNALS)


def test_in_another_thread_signals_are_left_alone() -> None:
    seen: list[bool] = []

    def work() -> None:
        with StopRequest() as request:
            seen.append(request.requested)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]


def test_a_wait_outside_of_python_can_be_ended() -> None:
    with ending_at_once():
        assert {signal.getsignal(number) for number in SIGNALS} == {signal.SIG_DFL}
    assert [signal.getsignal(number) for number in SIGNALS] == [remember] * len(SIGNALS)


@pytest.mark.parametrize(
    ("environment", "unusable"),
    [
        ({"WORLD_SIZE": "2"}, "RANK, MASTER_ADDR, MASTER_PORT"),
        ({"WORLD_SIZE": "two", "RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}, "WORLD_SIZE"),
        ({"WORLD_SIZE": "2", "RANK": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}, "RANK"),
    ],
)
def test_half_an_environment_of_torchrun_is_refused(
    environment: dict[str, str], unusable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in TORCHRUN_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert join() == Ranks()
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UnusableInput, match=f"but {unusable} cannot be used; start them by torchrun, or unset WORLD"):
        join()
