"""Measure how fast LLaMA-Factory trains a LoRA adapter on a CPU; print one JSON line.

Its own `run_exp`, with the template that adds nothing (the rows are rendered), LoRA, bf16, 8 rows per batch grouped by
length. Its gradient checkpointing is on, as it is by default; `--no-checkpointing` turns it off. `seconds` is the
trainer's own `train_runtime`; tokens are counted in the data set that it made, and a row that it changed is refused.
"""

from __future__ import annotations

import json
import sys
import types
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peer import IGNORED, options, read_rows, refuse, report

if TYPE_CHECKING:
    import argparse


def main() -> None:
    parser = options("Training speed of LLaMA-Factory, as one JSON line.")
    parser.add_argument("--no-checkpointing", action="store_true")
    report(measure, parser.parse_args())


def measure(asked: argparse.Namespace, folder: str) -> dict[str, object]:
    """Write its data set and options, train, check the tokens; give back the figures of the one JSON line."""
    from importlib.metadata import version

    without_audio()
    from llamafactory.train.tuner import run_exp
    from transformers import TrainerCallback

    rows = read_rows(asked.rows)
    write_dataset(rows, Path(folder))
    seen: dict[str, Any] = {}

    class Watch(TrainerCallback):
        def on_train_begin(self, *_: object, train_dataloader: Any, **__: object) -> None:
            seen["examples"] = [train_dataloader.dataset[i] for i in range(len(train_dataloader.dataset))]

        def on_train_end(self, _args: object, state: Any, *_: object, **__: object) -> None:
            seen["log"] = state.log_history

    run_exp(configure(asked, folder), [Watch()])
    if len(seen["examples"]) != len(rows):
        refuse(f"LLaMA-Factory kept {len(seen['examples'])} of {len(rows)} rows", "raise --max-length")
    check_rows(asked.model, rows, seen["examples"])
    labels = [label for example in seen["examples"] for label in example["labels"]]
    metrics = json.loads((Path(folder) / "out" / "train_results.json").read_text(encoding="utf-8"))
    losses = [entry["loss"] for entry in seen["log"] if "loss" in entry]
    real, seconds = asked.epochs * len(labels), metrics["train_runtime"]
    return {
        "tool": "LLaMA-Factory",
        "version": version("llamafactory"),
        "real_tokens": real,
        "trained_tokens": asked.epochs * sum(label != IGNORED for label in labels),
        "seconds": seconds,
        "tokens_per_second": round(real / seconds, 2),
        "checkpointing": not asked.no_checkpointing,
        "losses": losses,
        "first_loss": losses[0],
        "final_loss": losses[-1],
    }


def without_audio() -> None:
    """Let LLaMA-Factory import torchaudio where PyPI's build, made for CUDA, cannot be loaded; text never calls it."""
    try:
        import torchaudio  # noqa: F401
    except (ImportError, OSError):
        sys.modules["torchaudio"] = empty = types.ModuleType("torchaudio")
        empty.__spec__ = ModuleSpec("torchaudio", None)


def write_dataset(rows: list[dict[str, str]], folder: Path) -> None:
    """The rows in its alpaca form, and the index it finds them by."""
    (folder / "rows.json").write_text(
        json.dumps([{"instruction": row["prompt"], "input": "", "output": row["completion"]} for row in rows]),
        encoding="utf-8",
    )
    index = {"rows": {"file_name": "rows.json", "columns": {"prompt": "instruction", "response": "output"}}}
    (folder / "dataset_info.json").write_text(json.dumps(index), encoding="utf-8")


def check_rows(model: str, rows: list[dict[str, str]], examples: list[dict[str, list[int]]]) -> None:
    """Refuse if any row would be trained on other tokens than it holds."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    for number, (row, example) in enumerate(zip(rows, examples, strict=True), start=1):
        prompt, completion = (tokenizer(row[part], add_special_tokens=False)["input_ids"] for part in row)
        if list(example["labels"]) != [IGNORED] * len(prompt) + completion:
            refuse(f"row {number}: LLaMA-Factory would train on other tokens", "look at its template and --max-length")


def configure(asked: argparse.Namespace, folder: str) -> dict[str, object]:
    return {
        "stage": "sft",
        "do_train": True,
        "model_name_or_path": asked.model,
        "template": "empty",
        "dataset": "rows",
        "dataset_dir": folder,
        "output_dir": f"{folder}/out",
        "finetuning_type": "lora",
        "lora_rank": asked.rank,
        "lora_alpha": asked.alpha,
        "lora_target": asked.targets,
        "cutoff_len": asked.max_length,
        "per_device_train_batch_size": asked.batch,
        "num_train_epochs": asked.epochs,
        "learning_rate": asked.lr,
        "train_sampling_strategy": "group_by_length",
        "bf16": asked.dtype == "bf16",
        "disable_gradient_checkpointing": asked.no_checkpointing,
        "preprocessing_num_workers": 1,
        "use_cpu": True,
        "save_strategy": "no",
        "report_to": "none",
        "logging_steps": 1,
        "disable_tqdm": True,
        "overwrite_output_dir": True,
        "seed": 0,
    }


if __name__ == "__main__":
    main()
