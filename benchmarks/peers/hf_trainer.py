"""Measure how fast transformers' Trainer with peft trains a LoRA adapter on a CPU; print one JSON line.

What most scripts of the field do: the rows tokenised here, -100 on the prompt, a collator that pads, rows of like
length grouped (`train_sampling_strategy="group_by_length"`, once `group_by_length=True`), 8 per batch, bf16 weights, no
gradient checkpointing. `seconds` is the trainer's own `train_runtime`; real tokens are prompt and
completion, never padding. Optimizer, schedule and clipping are its defaults.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peer import DTYPES, IGNORED, options, read_rows, refuse, report

if TYPE_CHECKING:
    import argparse


def main() -> None:
    report(measure, options("Training speed of transformers' Trainer with peft, as one JSON line.").parse_args())


def measure(asked: argparse.Namespace, folder: str) -> dict[str, object]:
    """Load, tokenise, train; give back the figures of the one JSON line."""
    import transformers
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model

    tokenizer = transformers.AutoTokenizer.from_pretrained(asked.model)
    examples = [encode(tokenizer, row, asked.max_length) for row in read_rows(asked.rows)]
    net = transformers.AutoModelForCausalLM.from_pretrained(asked.model, dtype=DTYPES[asked.dtype])
    lora = LoraConfig(
        r=asked.rank, lora_alpha=asked.alpha, target_modules=asked.targets.split(","), task_type="CAUSAL_LM"
    )
    trainer = transformers.Trainer(
        model=get_peft_model(net, lora),
        args=configure(asked, folder),
        train_dataset=Dataset.from_list(examples),
        data_collator=transformers.DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=IGNORED),
    )
    seconds = trainer.train().metrics["train_runtime"]
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    real = asked.epochs * sum(len(example["input_ids"]) for example in examples)
    return {
        "tool": "transformers Trainer",
        "version": transformers.__version__,
        "real_tokens": real,
        "trained_tokens": asked.epochs * sum(label != IGNORED for example in examples for label in example["labels"]),
        "seconds": seconds,
        "tokens_per_second": round(real / seconds, 2),
        "losses": losses,
        "first_loss": losses[0],
        "final_loss": losses[-1],
    }


def encode(tokenizer: object, row: dict[str, str], limit: int) -> dict[str, list[int]]:
    """The row's ids, and labels that are theirs on the completion alone."""
    prompt, completion = (tokenizer(row[part], add_special_tokens=False)["input_ids"] for part in row)  # type: ignore[operator]
    if len(prompt) + len(completion) > limit:
        refuse(f"a row has {len(prompt) + len(completion)} tokens", "raise --max-length")
    ids = prompt + completion
    return {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": [IGNORED] * len(prompt) + completion}


def configure(asked: argparse.Namespace, folder: str) -> object:
    from transformers import TrainingArguments

    return TrainingArguments(
        output_dir=folder,
        per_device_train_batch_size=asked.batch,
        num_train_epochs=asked.epochs,
        learning_rate=asked.lr,
        train_sampling_strategy="group_by_length",
        use_cpu=True,
        save_strategy="no",
        report_to="none",
        logging_steps=1,
        disable_tqdm=True,
        seed=0,
    )


if __name__ == "__main__":
    main()
