"""A pretended device: tensors made for `cpu:0` count as its own, those of plain `cpu` as the host's.

On a machine without a GPU this finds what a GPU would refuse, an operation on tensors of both sides, and what makes the
host wait for the device: reading a value, a shape that depends on data, and a copy from either side to the other, for
which CUDA empties its queue unless it is asked not to block. Tensors are told apart by their storage.
"""

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

DEVICE = torch.device("cpu", 0)
aten = torch.ops.aten
_WAITS = {
    aten._local_scalar_dense: "value",
    aten.is_nonzero: "value",
    aten.equal: "value",
    aten._linalg_check_errors: "value",
    aten.nonzero: "shape",
    aten.masked_select: "shape",
    aten.bincount: "shape",
    aten.unique_dim: "shape",
    aten._unique2: "shape",
}
_INDEXED = aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_
_READS = torch.Tensor.tolist, torch.Tensor.numpy
_CROSSINGS = (aten._to_copy.default, aten.copy_.default)


class PretendDevice(TorchDispatchMode):
    """Raises where sides are mixed; counts where the host waits."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        """How often for what and where, "shape at file:line"."""
        self._sides: dict[int, bool] = {}

    def __enter__(self) -> "PretendDevice":
        self._reports = _DeviceOf(self)
        self._reports.__enter__()
        self._from_numpy = torch.from_numpy
        torch.from_numpy = self._of_host  # modes do not see it
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        torch.from_numpy = self._from_numpy
        self._reports.__exit__(*error)

    def owns(self, tensor: torch.Tensor) -> bool:
        return self._sides.get(tensor.untyped_storage()._cdata, False)

    def claim(self, tensor: torch.Tensor, ours: bool) -> None:
        """Say whose a tensor is."""
        self._sides[tensor.untyped_storage()._cdata] = ours

    def note(self, why: str) -> None:
        """Count a wait, with the innermost line of the package that caused it."""
        frame = sys._getframe(1)
        while frame.f_back is not None and not _is_ours(frame.f_code.co_filename):
            frame = frame.f_back
        self.waits[f"{why} at {Path(frame.f_code.co_filename).name}:{frame.f_lineno}"] += 1

    def _of_host(self, array: Any) -> torch.Tensor:
        tensor = self._from_numpy(array)
        self.claim(tensor, False)
        return tensor

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        sides = {self.owns(tensor) for tensor in inputs if tensor.dim() > 0}
        if len(sides) == 2 and func not in _CROSSINGS:
            raise RuntimeError(f"{func}: tensors on the device and on the host")
        ours = any(self.owns(tensor) for tensor in inputs)
        if ours and (why := _wait_of(func, args, kwargs)):
            self.note(why)
        device = kwargs.get("device")
        result = func(*args, **kwargs)
        on_device = ours if device is None else device.index == 0
        if (
            torch._C._current_graph_task_id() != -1
        ):  # the backward pass makes zeros where its tensors really are
            on_device = True
        if func is aten.copy_.default:
            on_device = self.owns(args[0])
        if func in _CROSSINGS and inputs and on_device != self.owns(inputs[-1]):
            self.note("copy")
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.claim(leaf, on_device)
        return result


def _is_ours(file: str) -> bool:
    return "/quicksurf/" in file or "/nerfacc/" in file or Path(file).name.startswith("test_")


def _wait_of(func: Any, args: Any, kwargs: Any) -> str | None:
    """What the host would wait for in an operation on tensors of the device."""
    packet = func.overloadpacket
    if packet is aten.repeat_interleave and kwargs.get("output_size") is None:
        return "shape"
    if packet in _INDEXED and any(i is not None and i.dtype == torch.bool for i in args[1]):
        return "shape"
    return _WAITS.get(packet)


class _DeviceOf(TorchFunctionMode):
    """Lets `tensor.device` name the side."""

    def __init__(self, pretended: PretendDevice) -> None:
        super().__init__()
        self._pretended = pretended

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func == torch.Tensor.device.__get__:
            return DEVICE if self._pretended.owns(args[0]) else torch.device("cpu")
        if func == torch.Tensor.to and len(args) > 1 and isinstance(args[1], torch.Tensor):
            side = DEVICE if self._pretended.owns(args[1]) else torch.device("cpu")
            return args[0].to(side, args[1].dtype)
        result = func(*args, **(kwargs or {}))
        if func in _READS and self._pretended.owns(args[0]):  # of a host's tensor they are no operation
            self._pretended.note("value")
        to_host = func == torch.Tensor.cpu or (func == torch.Tensor.to and args[1] == torch.device("cpu"))
        if to_host and self._pretended.owns(result):  # torch sees nothing to do
            result = result.clone()
            self._pretended.claim(result, False)
            if not (kwargs or {}).get("non_blocking"):
                self._pretended.note("copy")
        if func is torch.tensor:  # made unseen, perhaps where a tensor of the device was
            self._pretended.claim(result, (kwargs or {}).get("device") == DEVICE)
            if self._pretended.owns(result):
                self._pretended.note("copy")
        return result
