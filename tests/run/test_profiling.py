import json

import pytest
import torch
from torch import nn

from nas.run.profiling import profiled


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


def test_a_failure_in_the_block_is_passed_on(tmp_path):
    def fail() -> None:
        with profiled(tmp_path, enabled=True) as profiler:
            profiler.step()
            raise RuntimeError("diverged")

    with pytest.raises(RuntimeError, match="diverged"):
        fail()
