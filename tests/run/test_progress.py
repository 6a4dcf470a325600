"""The bar in a terminal, the lines elsewhere, and the profiler's trace."""

import io
import json
import os
import re

import pytest
import torch
from torch import nn

from nas.run.progress import Progress, profiled


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch) -> Terminal:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    return Terminal()


def run(progress: Progress) -> None:
    with progress:
        for step in range(1, 5):
            progress.update(step, loss=1 / step, phase="[warm-up]")
            if step % 2 == 0:
                progress.epoch_line(f"epoch {step // 2}: loss {1 / step:.2f} [max]")


def visible(stream: io.StringIO) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", stream.getvalue())


def test_a_file_gets_one_plain_line_per_epoch():
    stream = io.StringIO()
    run(Progress("search", total=4, stream=stream))
    assert stream.getvalue() == "epoch 1: loss 0.50 [max]\nepoch 2: loss 0.25 [max]\n"


def test_quiet_shows_nothing_anywhere(terminal):
    stream = io.StringIO()
    run(Progress("search", total=4, console="quiet", stream=stream))
    run(Progress("search", total=4, console="quiet", stream=terminal))
    assert stream.getvalue() == terminal.getvalue() == ""


def test_a_terminal_gets_a_bar_with_its_values_and_the_lines_of_the_epochs(terminal):
    run(Progress("search", total=4, stream=terminal))
    text = visible(terminal)
    last = text.splitlines()[-1]
    assert last.startswith("search ")
    assert "4/4" in last
    assert "loss 0.25  phase [warm-up]" in last
    assert "epoch 1: loss 0.50 [max]" in text
    assert "epoch 2: loss 0.25 [max]" in text


def test_a_resumed_run_starts_where_it_was(terminal):
    with Progress("search", total=10, start=6, stream=terminal):
        pass
    assert "6/10" in visible(terminal)


def test_standard_output_is_where_it_is_shown_by_default(capsys):
    run(Progress("search", total=4))
    assert capsys.readouterr().out.splitlines() == ["epoch 1: loss 0.50 [max]", "epoch 2: loss 0.25 [max]"]


def train(folder, enabled: bool, steps: int) -> None:
    network = nn.Linear(4, 2)
    with profiled(folder, enabled) as profiler:
        for _ in range(steps):
            network(torch.ones(3, 4)).sum().backward()
            profiler.step()


def operations_of(folder) -> list[str]:
    (trace,) = (folder / "profiler").glob("*.pt.trace.json")
    return [event.get("name", "") for event in json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]]


@pytest.mark.parametrize(("steps", "traced"), [(8, 3), (4, 2)], ids=["the whole schedule", "a run that ends early"])
def test_the_trace_holds_the_operations_of_the_third_to_fifth_step(tmp_path, steps, traced):
    train(tmp_path, enabled=True, steps=steps)
    operations = operations_of(tmp_path)
    assert operations.count("aten::linear") == traced
    assert any("AddmmBackward" in operation for operation in operations)


def test_too_few_steps_leave_no_trace(tmp_path):
    train(tmp_path, enabled=True, steps=1)
    assert list(tmp_path.rglob("*.json")) == []


def test_nothing_is_written_when_it_is_off(tmp_path):
    train(tmp_path, enabled=False, steps=8)
    assert list(tmp_path.iterdir()) == []


def test_the_profiler_keeps_its_own_log_to_itself(tmp_path, monkeypatch):
    monkeypatch.setenv("KINETO_LOG_LEVEL", "")
    monkeypatch.delenv("KINETO_LOG_LEVEL")
    train(tmp_path, enabled=True, steps=2)
    assert os.environ["KINETO_LOG_LEVEL"] == "99"


def test_a_failure_in_the_block_is_passed_on(tmp_path):
    def fail() -> None:
        with profiled(tmp_path, enabled=True) as profiler:
            profiler.step()
            raise RuntimeError("diverged")

    with pytest.raises(RuntimeError, match="diverged"):
        fail()
