"""IA3 and the further methods that `peft` brings, under its own names and with its own fields."""

from dataclasses import fields
from pathlib import Path
from typing import Any

from peft import PeftConfig
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.utils import PeftType
from transformers import PreTrainedModel

from tunesmith.errors import ConfigError
from tunesmith.method import Further, Ia3
from tunesmith.methods.evidence import Evidence
from tunesmith.methods.injected import ODD, Injected, inject, read, targets, task_type
from tunesmith.models.load import Model
from tunesmith.names import suggest

IA3 = (  # layers that make keys and values, and that which reads the inside of the MLP
    (("k_proj", "v_proj"), "down_proj"),
    (("k", "v"), "wo"),
    (("query_key_value",), "dense_4h_to_h"),
)


def prepare(model: Model, method: Further | Ia3, name: str, seed: int, evidence: Evidence) -> Injected:
    """Freeze the network and inject fresh adapters. Raises ConfigError for an option that peft does not have."""
    given: dict[str, Any] = {}
    if isinstance(method, Further):
        given = dict(method.options)
        if method.targets is not None:
            given["target_modules"] = targets(model.net, method.targets)
    else:
        given = _ia3(model.net)
    return inject(model.net, _config(method.name, given, task_type(model.net)), name, seed)


def _ia3(net: PreTrainedModel) -> dict[str, Any]:
    """Name the layers whose outputs (keys, values) and inputs (the MLP's inside) are scaled; of others peft knows.

    Its own names for Qwen have the queries in the place of the keys.
    """
    have = {name.rpartition(".")[2] for name, _ in net.named_modules()}
    inside = next((pair for pair in IA3 if {*pair[0], pair[1]} <= have), None)
    return {} if inside is None else {"target_modules": [*inside[0], inside[1]], "feedforward_modules": [inside[1]]}


def load(model: Model, method: Further | Ia3, name: str, folder: Path) -> Injected:
    """Put a saved adapter onto the network."""
    return read(model.net, folder, name)


def _config(name: str, given: dict[str, Any], task: str) -> PeftConfig:
    kind = PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(name.upper())]
    known = {field.name for field in fields(kind)}
    for option, value in given.items():
        if option not in known:
            raise ConfigError(f"method.options: peft's {name} has no field '{option}'", fix=suggest(option, known))
        if option in ODD or (option == "bias" and value != "none"):
            told = ODD.get(option, "trains the base's biases besides")
            raise ConfigError(f"method.options: {option} {told}, which no adapter here does", fix="leave it out")
    found: PeftConfig = kind(task_type=task, **given)
    return found
