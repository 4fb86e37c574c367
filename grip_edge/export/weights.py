"""A weight of a graph before it exists: what it will be, and how to make it when its turn to be written comes.

Graphs are traced and rewritten while their weights are only descriptions like these, so memory holds the tensors that
are being made and not the model. ``recipe`` says in words from what and how a weight is made: two weights of one recipe
have the same bytes, which lets an interrupted export know what it has done already.

Not here: reading checkpoints (``checkpoint``), quantisation (``quantise``), writing (``fill``).
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir
import torch
from onnx_ir.tensor_adapters import TorchTensor, from_torch_dtype, to_torch_dtype
from torch import Tensor

from grip_edge.errors import UserError

MakeTensor = Callable[[], Tensor]

# Type of equally wide integers, and the pattern of infinity, per type of floats: greater patterns are NaN.
_BITS = {
    torch.float16: (torch.int16, 0x7C00),
    torch.bfloat16: (torch.int16, 0x7F80),
    torch.float32: (torch.int32, 0x7F800000),
}
_CHUNK_ELEMENTS = 1 << 22


class Weight(ir.LazyTensor):
    """``make`` gives the tensor as it is stored: 4-bit numbers come packed in pairs, as uint8, lower half first."""

    def __init__(self, dtype: ir.DataType, shape: tuple[int, ...], recipe: str, make: MakeTensor) -> None:
        super().__init__(self._materialise, dtype, ir.Shape(shape))
        self.sizes = shape
        self.make = make
        self.recipe = recipe

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.dtype.name}, {list(self.sizes)}, {self.recipe!r})"

    def _materialise(self) -> ir.TensorProtocol:
        tensor = self.make()
        if self.dtype.bitwidth < 8:
            return ir.PackedTensor(tensor.numpy(), self.dtype, shape=self.shape)
        return TorchTensor(tensor)


class FloatWeight(Weight):
    """``stored`` gives the numbers in the checkpoint's own float type, without a copy in a wider one."""

    def __init__(self, dtype: ir.DataType, shape: tuple[int, ...], recipe: str, stored: MakeTensor) -> None:
        super().__init__(dtype, shape, f"{recipe} as {dtype.name}", self._cast)
        self.stored = stored
        self._source = recipe

    def transposed(self) -> FloatWeight:
        """[A,B] -> [B,A]."""
        rows, columns = self.sizes
        return FloatWeight(
            self.dtype, (columns, rows), f"{self._source}, transposed", lambda: self.stored().t().contiguous()
        )

    def cast(self, dtype: ir.DataType) -> FloatWeight:
        return FloatWeight(dtype, self.sizes, self._source, self.stored)

    def scaled(self, factors: Tensor, axis: int) -> FloatWeight:
        """Multiplied along ``axis`` by ``factors`` (fp32, as long as that axis), in fp32."""
        shape = [-1 if i == axis else 1 for i in range(len(self.sizes))]
        digest = hashlib.sha256(factors.contiguous().numpy().data).hexdigest()
        recipe = f"{self._source}, axis {axis} times {digest}"
        return FloatWeight(self.dtype, self.sizes, recipe, lambda: self.stored().float() * factors.reshape(shape))

    def _cast(self) -> Tensor:
        stored = self.stored()
        cast = stored.to(to_torch_dtype(self.dtype))
        if self.dtype == ir.DataType.FLOAT16 and cast.dtype != stored.dtype and first_not_finite(cast) is not None:
            raise UserError(
                f"{self._source}: a weight of {stored.abs().max().item():.3g} does not fit fp16, which ends at 65504; "
                "use --precision bf16 or fp32."
            )
        return cast


class Parts:
    """One computation that several weights share, such as codes and scales of one quantised matrix.

    Parts are asked for in their order, once each, by any thread; a part is forgotten when it is given away. An export
    that resumes in the middle asks for the later parts alone.
    """

    def __init__(self, compute: Callable[[], tuple[Tensor, ...]]) -> None:
        self._compute = compute
        self._waiting: dict[int, Tensor] = {}
        self._lock = threading.Lock()

    def part(self, index: int) -> Part:
        return Part(self, index)

    def take(self, index: int) -> Tensor:
        with self._lock:
            if index not in self._waiting:
                self._waiting = {i: tensor for i, tensor in enumerate(self._compute()) if i >= index}
            return self._waiting.pop(index)


@dataclass(frozen=True)
class Part:
    """Makes one of the parts."""

    of: Parts
    index: int

    def __call__(self) -> Tensor:
        return self.of.take(self.index)


def given_weight(tensor: Tensor) -> FloatWeight:
    """A weight that is in memory already."""
    digest = hashlib.sha256(tensor.contiguous().view(torch.uint8).numpy().data).hexdigest()
    return FloatWeight(from_torch_dtype(tensor.dtype), tuple(tensor.shape), f"sha256 {digest}", lambda: tensor)


def first_not_finite(tensor: Tensor) -> int | None:
    """Flat index of the first NaN or infinity; a bit pattern tells it faster than arithmetic does."""
    integers, infinity = _BITS[tensor.dtype]
    flat = tensor.reshape(-1).view(integers)
    for start in range(0, flat.numel(), _CHUNK_ELEMENTS):
        magnitudes = flat[start : start + _CHUNK_ELEMENTS] & torch.iinfo(integers).max
        if int(magnitudes.max()) >= infinity:
            return start + int((magnitudes >= infinity).nonzero()[0])
    return None
