"""Numbers from and to a device."""

import torch

from nas.device.transfer import as_numbers, on_device


def test_numbers_of_any_type_come_in_their_order():
    values = [torch.tensor([2.5]), 1, torch.tensor(3, dtype=torch.int64), torch.tensor(0.1, dtype=torch.float64), 0.25]
    assert as_numbers(values) == [2.5, 1.0, 3.0, 0.1, 0.25]
    assert as_numbers([]) == []


def test_tensors_go_to_a_device_and_what_is_no_tensor_stays():
    raw = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    values = {"rate": 2 * raw, "fixed": 0.1, "dropout": raw.square()}
    here = on_device(values, torch.device("cpu"))
    assert here == values, "nothing is copied for nothing"
    there = on_device(values, torch.device("meta"))
    assert list(there) == list(values)
    assert there["fixed"] == 0.1
    for name in ("rate", "dropout"):
        assert (there[name].device.type, there[name].shape, there[name].dtype) == ("meta", (), torch.float64)
        assert there[name].requires_grad
