"""Adapter folders that peft or TRL have written: what they belong to, and whether all that is in them can be read."""

import json
from pathlib import Path
from typing import Any

from peft import PeftConfig
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

from tunesmith.errors import ModelError
from tunesmith.method import Further, Ia3, Lora, Method, Prefix, PromptTuning, PTuning
from tunesmith.methods.injected import ODD, WEIGHTS
from tunesmith.models.embedded import HUB_IDS

CONFIG = "adapter_config.json"
PROMPTS: dict[str, Any] = {"PROMPT_TUNING": PromptTuning, "P_TUNING": PTuning, "PREFIX_TUNING": Prefix}
ONCE = "merge it into its base with peft's own merge_and_unload, and use that model"


def understand(folder: Path) -> tuple[str, Method]:
    """Give the base model's name and the method. Raises ModelError for a folder that we could only half read."""
    values = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    kind = str(values.get("peft_type"))
    if kind not in PEFT_TYPE_TO_CONFIG_MAPPING:
        raise ModelError(f"{folder}: the installed peft knows no '{kind}'", fix="pip install -U peft")
    config: Any = PeftConfig.from_pretrained(str(folder))
    _check(folder, config)
    base = config.base_model_name_or_path
    if not base:
        raise ModelError(f"{folder}/{CONFIG}: names no base model", fix="write its id as base_model_name_or_path")
    known = {hub: alias for alias, hub in HUB_IDS.items()}
    return known.get(base, base), _method(folder, kind, config)


def _method(folder: Path, kind: str, config: Any) -> Method:
    if kind == "LORA":
        return _lora(config)
    if kind == "IA3":
        return Ia3()
    if kind in PROMPTS:
        found: Method = PROMPTS[kind](tokens=config.num_virtual_tokens)
        return found
    if kind.lower() in Further.rates:
        return Further(name=kind.lower(), targets=None)
    known = ["lora", "ia3", *Further.rates, *(name.lower() for name in PROMPTS)]
    raise ModelError(f"{folder}: peft's {kind.lower()} is not among the methods here: {', '.join(known)}", fix=ONCE)


def _lora(config: Any) -> Lora:
    names = config.target_modules
    return Lora(
        rank=config.r,
        alpha=config.lora_alpha,
        targets=names if isinstance(names, str) else tuple(sorted(names)),
        dropout=config.lora_dropout,
        rslora=config.use_rslora,
        dora=config.use_dora,
        ranks=config.rank_pattern,
    )


def _check(folder: Path, config: Any) -> None:
    """Refuse what is not only an adapter's weights. Raises ModelError."""
    for name, told in ODD.items():
        if getattr(config, name, None):
            raise ModelError(f"{folder}: {told} ({name}), which is not read here", fix=ONCE)
    if getattr(config, "bias", "none") != "none":
        raise ModelError(f"{folder}: trains the base's biases besides (bias='{config.bias}')", fix=ONCE)
    if getattr(config, "num_transformer_submodules", None) not in (None, 1):
        raise ModelError(
            f"{folder}: has virtual tokens for the decoder too (num_transformer_submodules)", fix="train it with 1"
        )
    if not (folder / WEIGHTS).is_file():
        old = (folder / "adapter_model.bin").is_file()
        raise ModelError(
            f"{folder}: holds no {WEIGHTS}" + (", only a pickle, adapter_model.bin" if old else ""),
            fix="load it with peft and save it again" if old else "restore the file",
        )
