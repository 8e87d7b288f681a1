"""Provenance: everything a reader needs to trust a run, or to repeat it."""

import hashlib
import json
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
            "tokenizer_sha256": tokenizer_sha256(model),
            "kind": model.kind,
            "parameters": model.parameters(),
            "prompting": "chat" if model.encoder.chat else "plain",
        },
        "data": sources,
        "seed": seed,
    }


def tokenizer_sha256(model: Model) -> str:
    """Give a SHA-256 over what turns text into ids and back: vocabulary, special and stop tokens, templates."""
    tokenizer: Any = model.encoder.tokenizer
    inner = getattr(tokenizer, "backend_tokenizer", None)
    told = [
        sorted(tokenizer.get_vocab().items()),
        getattr(tokenizer, "chat_template", None),
        list(model.encoder.stops),
        sorted(tokenizer.all_special_tokens),
        json.loads(inner.to_str())["decoder"] if inner else None,
        getattr(tokenizer, "clean_up_tokenization_spaces", None),
    ]
    return hashlib.sha256(json.dumps(told, default=str).encode()).hexdigest()
