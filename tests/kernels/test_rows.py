"""Selections of rows: what both kinds promise, and that the one for GPUs does not wait."""

import pytest
import torch
from back_ends import CPU

from quicksurf.kernels.gpu.selection import AsyncSelection
from quicksurf.kernels.selection import AsyncScalar, Selection

CHOICES = pytest.mark.parametrize("make", [Selection, AsyncSelection])


def random_mask(n, fraction, seed=0):
    return torch.rand(n, generator=torch.Generator().manual_seed(seed)) < fraction


@CHOICES
def test_the_first_rows_of_a_mask(make):
    mask = random_mask(200, 0.4)
    expected = [i for i in range(200) if mask[i]]
    assert make().first_where(mask, 30).tolist() == expected[:30]
    assert make().first_where(mask, len(expected)).tolist() == expected
    assert len(make().first_where(mask[:0], 5)) == 0


def test_too_few_rows_are_repeated_in_turn_so_that_a_mean_stays_one():
    mask = torch.tensor([False, True, False, True, True, False, False])
    assert AsyncSelection().first_where(mask, 7).tolist() == [1, 3, 4, 1, 3, 4, 1]
    assert AsyncSelection().first_where(mask, 100).tolist() == [1, 3, 4, 1, 3, 4, 1]
    assert AsyncSelection().first_where(torch.zeros(3, dtype=torch.bool), 2).tolist() == [2, 2]


@CHOICES
def test_most_rows_of_a_mask(make):
    selection = make()
    for seed in range(5):
        mask = random_mask(40_000, 0.3, seed)
        chosen = selection.most_where(mask, "here")
        assert bool(mask[chosen].all()) and len(chosen.unique()) == len(chosen)
        assert 0.9 * int(mask.sum()) < len(chosen) <= int(mask.sum())


@CHOICES
def test_all_values_below_a_limit_and_the_smallest_where_there_are_more_than_last_time(make):
    selection, values = make(), torch.rand(3000, generator=torch.Generator().manual_seed(0))
    below = set(torch.nonzero(values < 0.5)[:, 0].tolist())
    for _ in range(3):
        chosen = selection.all_below(values, 0.5, "here").tolist()
        assert below <= set(chosen) and len(set(chosen)) == len(chosen) < 1.2 * len(below) + 100
    chosen = set(selection.all_below(values, 0.9, "here").tolist())
    left_out = torch.tensor([i for i in range(3000) if i not in chosen])
    assert float(values[left_out].min()) >= float(values[torch.tensor(sorted(chosen))].max())
    assert set(selection.all_below(values, 0.5).tolist()) == below  # without a memory: exact


@CHOICES
def test_packed_samples_are_those_of_the_mask_or_all(make):
    packed = torch.tensor([[0, 3], [3, 0], [3, 5]])
    mask = torch.tensor([True, False, True, False, False, True, False, True])
    index, kept = make().packed_where(mask, packed)
    if index is None:
        assert torch.equal(kept, packed)
    else:
        assert index.tolist() == [0, 2, 5, 7] and kept.tolist() == [[0, 2], [2, 0], [2, 2]]


class Event:
    """A double of torch.cuda.Event: what is copied is there once it was waited for."""

    def __init__(self):
        self.recorded, self.waited = [], 0

    def record(self, stream):
        self.recorded.append(stream)

    def synchronize(self):
        self.waited += 1


def test_an_async_scalar_is_copied_behind_the_work_and_waited_for_when_read(monkeypatch):
    class OnDevice(torch.Tensor):
        is_cuda, device = True, "cuda:0"

        def detach(self):
            return self

        def to(self, device, non_blocking):
            assert device == CPU and non_blocking
            return torch.tensor(0.25)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"stream of {device}")
    value = AsyncScalar()
    assert value.get() is None
    value.put(torch.tensor(0.25).as_subclass(OnDevice))
    assert value._copied.recorded == ["stream of cuda:0"] and value._copied.waited == 0
    assert value.get() == 0.25 and value._copied.waited == 1
