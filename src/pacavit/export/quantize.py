"""8-bit convolutions and linear layers in an ONNX file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from pacavit.errors import PacavitError
from pacavit.export.program import quiet
from pacavit.utils.text import one_line

__all__ = ["CalibrationBatches", "quantize"]

_QUANTIZED = ("Conv", "Gemm", "MatMul")


class CalibrationBatches(Protocol):
    """Inputs whose ranges are measured, as ONNX Runtime's ``CalibrationDataReader`` has them."""

    def get_next(self) -> Mapping[str, NDArray[Any]] | None:
        """The next batch by the name of the input; None after the last."""


def quantize(
    plain: Path,
    out: Path,
    batches: CalibrationBatches,
    *,
    exclude: Callable[[Path], Sequence[str]] = lambda _: (),
) -> None:
    """Write an ONNX file in int8, in QDQ format.

    Weights have a scale for each output channel. Activations are unsigned and weights signed, which
    CPUs multiply fastest. A prepared file is left beside ``out``.

    Args:
        plain: the file in fp32.
        out: file to write.
        batches: to calibrate with.
        exclude: returns the names of the nodes that stay in fp32, given the prepared file.

    Raises:
        PacavitError: ONNX Runtime cannot quantize the network.
    """
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = out.with_name("prepared.onnx")
    with quiet():
        try:
            quant_pre_process(plain, prepared, skip_symbolic_shape=True)
            quantization.quantize_static(
                prepared,
                out,
                batches,
                quant_format=quantization.QuantFormat.QDQ,
                op_types_to_quantize=list(_QUANTIZED),
                nodes_to_exclude=list(exclude(prepared)),
                per_channel=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                extra_options={"MatMulConstBOnly": True},
            )
        except PacavitError:
            raise
        except Exception as error:  # its errors have no common class
            raise PacavitError(
                f"ONNX Runtime cannot quantize this network: {one_line(error)[:300]}"
            ) from error
