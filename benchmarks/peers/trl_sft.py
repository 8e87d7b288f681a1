"""Measure how fast TRL's SFTTrainer trains a LoRA adapter on a CPU; print one JSON line.

Measured: real tokens (prompt and completion, never padding) per second of the training loop. `seconds` is the
trainer's own `train_runtime`: it starts after the model is loaded, the rows are tokenised and the optimizer's plan is
made, and ends after the last step. `peak_rss_bytes` is the high-water mark of the whole process (VmHWM, so Linux only).

How TRL is used: the prompt-completion dataset, loss on the completion only and `peft_config`, as its SFT page says.
Of the settings that leave the arithmetic of an optimizer step as it is, those that are best on a CPU are taken:

- `--micro-batch 1`: one row per forward pass, gradients accumulated over `--batch` rows. Nothing is padded; on 16 rows
  it was as fast as 8 rows padded together and held 1.9 GB instead of 8.1. Above 1, `--order length` groups rows of
  like length, which leaves little padding, but no step's loss is then comparable with another tool's.
- bf16 weights (`dtype` in `model_init_kwargs`) and no autocast. TRL's default, fp32 weights under bf16 autocast, casts
  every frozen weight again at every use; bf16 weights under autocast measured the same. PEFT keeps the adapter in fp32.
- no gradient checkpointing (TRL's default is on), because it computes the forward pass twice.
- SDPA attention. With `--micro-batch 8`, `--attention eager` took a tenth to a fifth less time in a warm step, and
  11.4 GB instead of 8.1. Packing and padding-free are documented for FlashAttention only, which is made for GPUs.
- freed memory is kept and used again, in huge pages. By default glibc hands every large tensor back to the kernel, and
  touching the pages anew is slow on a virtual machine: 16 rows with `--micro-batch 8` took 97 s so, 39 to 44 s kept.
  `--memory returned` leaves that default; whatever is compared must run under the same choice.

TRL 1.16 projects the vocabulary for every position, prompt included, wherever Triton has no device, and has no setting
for that. Schedule, clipping and optimizer are its defaults: linear decay to zero without warm-up, gradient norm 1,
fused AdamW without weight decay.

Nothing of tunesmith is imported, and the run is refused if TRL would train on other tokens than the rows hold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from peer import DTYPES, IGNORED, options, read_rows, refuse, report

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from transformers import PreTrainedTokenizerBase
    from trl import SFTConfig, SFTTrainer

    Row = dict[str, str]
    Example = dict[str, list[int]]

ORDERS = {"given": "sequential", "length": "group_by_length"}


def main() -> None:
    parser = options("Training speed of TRL's SFTTrainer, as one JSON line.")
    parser.add_argument("--micro-batch", type=int, default=1, help="rows per forward pass; divides --batch")
    parser.add_argument("--order", choices=ORDERS, default="given", help="of the rows: as in the file, or by length")
    parser.add_argument("--attention", choices=["sdpa", "eager"], default="sdpa")
    asked = parser.parse_args()
    if asked.batch % asked.micro_batch:
        parser.error(f"--micro-batch {asked.micro_batch} does not divide --batch {asked.batch}")
    report(measure, asked)


def measure(asked: argparse.Namespace, folder: str) -> dict[str, object]:
    """Load, check the tokens, train; give back the figures of the one JSON line."""
    import trl
    from transformers import AutoTokenizer

    rows = read_rows(asked.rows)
    tokenizer = AutoTokenizer.from_pretrained(asked.model)
    trainer = build_trainer(asked, rows, tokenizer, folder)
    prepared = list(cast("Iterable[Example]", trainer.train_dataset))
    real, trained = (asked.epochs * count for count in count_tokens(prepared, rows, tokenizer))
    seconds = trainer.train().metrics["train_runtime"]
    seen = max(entry.get("num_tokens", 0) for entry in trainer.state.log_history)
    if seen != real:
        refuse(f"TRL counted {seen:.0f} tokens where the rows hold {real}", "report it: this script is wrong")
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {
        "tool": "trl",
        "version": trl.__version__,
        "real_tokens": real,
        "trained_tokens": trained,
        "seconds": seconds,
        "tokens_per_second": round(real / seconds, 2),
        "order": asked.order,
        "micro_batch": asked.micro_batch,
        "attention": asked.attention,
        "losses": losses,
        "first_loss": losses[0],
        "final_loss": losses[-1],
    }


def build_trainer(
    asked: argparse.Namespace, rows: list[Row], tokenizer: PreTrainedTokenizerBase, folder: str
) -> SFTTrainer:
    """An SFTTrainer ready to train: model loaded, adapter added, rows tokenised."""
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTTrainer

    return SFTTrainer(
        model=asked.model,
        args=configure(asked, folder),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=LoraConfig(
            r=asked.rank, lora_alpha=asked.alpha, target_modules=asked.targets.split(","), task_type="CAUSAL_LM"
        ),
    )


def configure(asked: argparse.Namespace, folder: str) -> SFTConfig:
    """The settings the module's docstring gives reasons for."""
    from trl import SFTConfig

    return SFTConfig(
        output_dir=folder,
        per_device_train_batch_size=asked.micro_batch,
        gradient_accumulation_steps=asked.batch // asked.micro_batch,
        num_train_epochs=asked.epochs,
        learning_rate=asked.lr,
        max_length=asked.max_length,
        completion_only_loss=True,
        packing=False,
        use_cpu=True,
        bf16=False,
        model_init_kwargs={"dtype": DTYPES[asked.dtype], "attn_implementation": asked.attention},
        gradient_checkpointing=False,
        train_sampling_strategy=ORDERS[asked.order],
        save_strategy="no",
        report_to="none",
        logging_steps=1,
        disable_tqdm=True,
        seed=0,
    )


def count_tokens(prepared: list[Example], rows: list[Row], tokenizer: PreTrainedTokenizerBase) -> tuple[int, int]:
    """(All tokens, tokens with loss) of one epoch, once every row is seen to be what the file says.

    TRL adds an EOS where it misses one, cuts what is too long, drops what is left without a completion and moves the
    border where prompt and completion merge. A speed is only comparable when it did none of that.
    """
    if len(prepared) != len(rows):
        refuse(f"TRL kept {len(prepared)} of {len(rows)} rows", "raise --max-length")
    for number, (row, example) in enumerate(zip(rows, prepared, strict=True), start=1):
        check_row(number, row, example, tokenizer)
    labels = [label for example in prepared for label in example["labels"]]
    return len(labels), sum(label != IGNORED for label in labels)


def check_row(number: int, row: Row, example: Example, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a row whose ids or labels differ from the prompt's and the completion's own, joined."""
    prompt, completion = (tokenizer(row[part], add_special_tokens=False)["input_ids"] for part in row)
    same_ids = example["input_ids"] == prompt + completion
    same_labels = example["labels"] == [IGNORED] * len(prompt) + completion
    if not (same_ids and same_labels):
        refuse(
            f"row {number}: TRL would train on {len(example['input_ids'])} tokens, or with a loss on others, "
            f"where the row holds {len(prompt)} + {len(completion)}",
            "end the completion with the tokenizer's EOS, the prompt at a token border, or raise --max-length",
        )


if __name__ == "__main__":
    main()
