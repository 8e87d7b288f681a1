"""Provenance: everything a reader needs to trust a run, or to repeat it."""

from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.models import device
from tunesmith.models.load import Model
from tunesmith.runs import machine


def provenance(model: Model, sources: Mapping[str, Any], seed: int, command: Sequence[str]) -> dict[str, Any]:
    """Give versions, hardware, dtype, model and data hashes, as `provenance.json` holds them."""
    facts = machine.describe(command)
    return {
        **facts,
        "hardware": {**facts["hardware"], "device": device.device_name()},
        "dtype": device.dtype_name(model.dtype.torch),
        "dtype_reason": model.dtype.reason,
        "model": {
            "name": model.name,
            "sha256": model.sha256,
            "kind": model.kind,
            "parameters": model.parameters(),
            "prompting": "chat" if model.encoder.chat else "plain",
        },
        "data": sources,
        "seed": seed,
    }
