"""A generator as a program for other runtimes: ONNX, and PyTorch's own exported program."""

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from dnnlib.errors import UserError
from dnnlib.files import atomic_file
from torch_utils import ops
from training.networks.shared.generator import Generator, NoiseMode

TOLERANCE = 1e-3  # largest difference between ours and the exported program's images, of a range of 2


class SamplingModule(nn.Module):
    """(z [N, z_dim], c [N, c_dim]) -> images [N, C, H, W], with truncation and noise mode fixed."""

    def __init__(self, G: Generator, truncation_psi: float, noise_mode: NoiseMode) -> None:
        super().__init__()
        self.G, self.truncation_psi, self.noise_mode = G, truncation_psi, noise_mode

    def forward(self, z: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        return self.G(z, c, truncation_psi=self.truncation_psi, noise_mode=self.noise_mode)


class UnlabelledModule(SamplingModule):
    """z [N, z_dim] -> images [N, C, H, W], for a network without labels."""

    def forward(self, z: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return super().forward(z, z.new_zeros(z.shape[0], 0))


def exported_program(
    G: Generator, truncation_psi: float = 1, noise_mode: NoiseMode = "const", drop_c: bool = False
) -> Any:
    """`torch.export` of a generator on the CPU, for any batch size from 1 up. With `drop_c` one that has no labels
    doesn't take any.

    Raises UserError for random noise (an exported program gives one picture per latent), and for a network that
    torch.export can't follow.
    """
    if noise_mode == "random":
        raise UserError("an exported generator has no random noise: choose --noise-mode=const or none")
    unlabelled = drop_c and not G.c_dim
    module = (UnlabelledModule if unlabelled else SamplingModule)(G.cpu().eval(), truncation_psi, noise_mode)
    batch = torch.export.Dim("batch", min=1)
    shapes = {"z": {0: batch}} if unlabelled else {"z": {0: batch}, "c": {0: batch}}
    inputs = example_inputs(G)[: len(shapes)]
    try:
        with ops.use("ref"):  # other runtimes have none of our kernels
            return torch.export.export(module, inputs, dynamic_shapes=shapes)
    except RuntimeError as e:  # dynamo's errors are such
        reason = " ".join(str(e).split())[:200]
        raise UserError(f"torch.export can't follow the generator {G.cfg.kind} for any batch size: {reason}") from e


def example_inputs(G: Generator, n: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents [n, z_dim] and zero labels [n, c_dim]."""
    latents = torch.randn(n, G.z_dim, generator=torch.Generator().manual_seed(0))
    return latents, torch.zeros(n, G.c_dim)


def write_program(path: str | os.PathLike[str], G: Generator, truncation_psi: float, noise_mode: NoiseMode) -> float:
    """Writes the `.pt2` form (`torch.export.load` opens it); returns the largest difference from G's own images."""
    with atomic_file(path) as file:  # opened first: a place that can't be written is known before the long work
        program = exported_program(G, truncation_psi, noise_mode)
        z, c = example_inputs(G, n=3)
        error = _difference(G, truncation_psi, noise_mode, z, c, program.module()(z, c))
        data = io.BytesIO()  # torch's own writer ends the whole process where a disk is full
        torch.export.save(program, data)
        file.write(data.getbuffer())
    return error


def write_onnx(path: str | os.PathLike[str], G: Generator, truncation_psi: float, noise_mode: NoiseMode) -> float:
    """Writes an ONNX model and checks it with onnxruntime; returns the largest difference from G's own images.

    Raises UserError without the `onnx` extra, or if the model's images differ by more than TOLERANCE.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  (torch.onnx needs it)
    except ImportError as e:
        raise UserError(f"ONNX export needs the package {e.name}: pip install 'styleloom[onnx]'") from e
    with atomic_file(path) as file:  # opened first, as above
        data = _onnx_model(exported_program(G, truncation_psi, noise_mode, drop_c=True))
        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = 3  # errors only
        session = onnxruntime.InferenceSession(data, settings, providers=["CPUExecutionProvider"])
        z, c = example_inputs(G, n=3)
        inputs = {value.name: {"z": z, "c": c}[value.name].numpy() for value in session.get_inputs()}
        (images,) = session.run(None, inputs)
        error = _difference(G, truncation_psi, noise_mode, z, c, torch.from_numpy(images))
        file.write(data)
    return error


def _onnx_model(program: Any) -> bytes:
    with warnings.catch_warnings(), _quiet("torch.onnx"):
        warnings.simplefilter("ignore")
        # Its optimiser takes additions of 1e-8 for additions of nothing, and then divides by zero.
        model = torch.onnx.export(
            program, input_names=["z", "c"], output_names=["images"], verbose=False, optimize=False
        )
        assert model is not None
        return _lean(model.model)


def _lean(model: Any) -> bytes:
    """An ONNX model with its constants computed, and without the paths and stack traces of this machine, which the
    exporter writes beside every node."""
    import onnx_ir
    from onnx_ir.passes import common
    from onnxscript import optimizer

    optimizer.fold_constants(model)
    for simplify in (common.RemoveUnusedNodesPass(), common.ClearMetadataAndDocStringPass()):
        model = simplify(model).model
    for value in (*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    return bytes(onnx_ir.to_proto(model).SerializeToString())


@contextlib.contextmanager
def _quiet(logger: str) -> Iterator[None]:
    """Only errors of a library's logger inside the block."""
    log = logging.getLogger(logger)
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


def _difference(
    G: Generator, psi: float, noise_mode: NoiseMode, z: torch.Tensor, c: torch.Tensor, images: torch.Tensor
) -> float:
    with torch.no_grad():
        error = float((images - G(z, c, truncation_psi=psi, noise_mode=noise_mode)).abs().max())
    if not error <= TOLERANCE:
        raise UserError(f"the exported program's images differ by {error:.2g} from the network's: nothing was written")
    return error
