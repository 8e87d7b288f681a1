"""QLoRA: LoRA on a base in 4 bits. The adapter is LoRA's, and its files are; the base is packed before it is put on."""

from pathlib import Path

from tunesmith.errors import ModelError
from tunesmith.method import Qlora
from tunesmith.methods import lora
from tunesmith.methods.evidence import Evidence
from tunesmith.methods.injected import Injected
from tunesmith.models import device
from tunesmith.models.load import Model
from tunesmith.models.quantize import Packing, packing_of, quantize

AGAIN = "load the model again for this adapter"


def prepare(model: Model, method: Qlora, name: str, seed: int, evidence: Evidence) -> Injected:
    """Pack the base and inject fresh adapters. Raises ModelError if it is packed in another way, or has adapters."""
    _pack(model, method)
    return lora.prepare(model, method, name, seed, evidence)


def load(model: Model, method: Qlora, name: str, folder: Path) -> Injected:
    """Pack the base and put a saved adapter onto it. Raises ModelError as `prepare` does."""
    _pack(model, method)
    try:
        return lora.load(model, method, name, folder)
    except ModelError as wrong:
        raise ModelError(wrong.what, fix=f"{wrong.fix}; then {AGAIN}, whose base has been packed") from wrong


def _pack(model: Model, method: Qlora) -> None:
    wanted, have = Packing(method.quant, method.double_quant), packing_of(model.net)
    if have not in (None, wanted):
        raise ModelError(f"qlora: the base is packed as {have}, the adapter asks for {wanted}", fix=AGAIN)
    if have is None and model.fits:
        raise ModelError(f"qlora: the adapter '{next(iter(model.fits))}' sits on the dense base", fix=AGAIN)
    if have is None:
        quantize(model.net, wanted, device.current())
