"""Greedy answers in batches, rows of similar length together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig

from tunesmith.errors import FitError
from tunesmith.inference.decode import decode
from tunesmith.inference.sampling import GREEDY, Sampling
from tunesmith.models.attention import can_pack
from tunesmith.models.load import Model
from tunesmith.models.route import Names, by_row

BATCH_ROWS = 64
CACHE_BYTES = 2**31  # keys and values of one batch: what a laptop can spare


@dataclass(frozen=True)
class Generated:
    """Tokens of one answer, its stop token left out, and their text as it is, cut before a stop text.

    `finished` says whether it stopped by itself, or at a stop text.
    """

    ids: tuple[int, ...]
    finished: bool
    text: str


def generate(
    model: Model,
    prompts: Sequence[tuple[str, tuple[int, ...]]],
    max_new_tokens: int,
    on_batch: Callable[[int], None] | None = None,
    adapters: Names = None,
    sampling: Sampling | Sequence[Sampling] = GREEDY,
) -> list[Generated]:
    """Answer (id, token ids) prompts greedily, in the order given.

    The longest prompts go first, so that memory runs out at the start or not
    at all. Raises FitError naming the first prompt that leaves no room for an
    answer in the model's context. `adapters` names the one that each prompt is
    asked of, where not all are asked of what is switched on (see `mixed.py`).
    """
    _check_room(model, prompts, max_new_tokens)
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i][1]))
    answers: dict[int, Generated] = {}
    answer = partial(_unpadded if can_pack(model.net) else _padded, model)
    for batch in _batches(order, prompts, max_new_tokens, CACHE_BYTES // _token_bytes(model)):
        names = adapters and [adapters[i] for i in batch]
        made = answer([prompts[i][1] for i in batch], max_new_tokens, names)
        answers.update(zip(batch, made, strict=True))
        if on_batch:
            on_batch(len(batch))
    settings = [sampling] * len(prompts) if isinstance(sampling, Sampling) else sampling
    return [_cut(answers[i], settings[i].stop) for i in range(len(prompts))]


def _cut(answer: Generated, stop: Sequence[str]) -> Generated:
    ends = [place for text in stop if (place := answer.text.find(text)) >= 0]
    return replace(answer, finished=True, text=answer.text[: min(ends)]) if ends else answer


def _check_room(model: Model, prompts: Sequence[tuple[str, tuple[int, ...]]], max_new_tokens: int) -> None:
    # An encoder-decoder keeps its answer apart, and T5's relative positions set no limit to its prompt.
    if model.context is None or model.kind == "encoder-decoder":
        return
    for name, ids in prompts:
        if len(ids) + max_new_tokens > model.context:
            raise FitError(
                f"row {name}: {len(ids)} prompt tokens and {max_new_tokens} new ones "
                f"exceed the context of {model.context}",
                fix="use fewer shots, or a smaller generation.max_new_tokens",
            )


def _token_bytes(model: Model) -> int:
    """Give the bytes that one token takes in the cache: keys and values of every layer."""
    config = model.net.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * config.num_hidden_layers * heads * width * model.dtype.torch.itemsize)


def _batches(
    order: Sequence[int], prompts: Sequence[tuple[str, tuple[int, ...]]], new: int, budget: int
) -> list[list[int]]:
    """Cut the sorted rows so that a batch's longest row times its rows stays within `budget` tokens."""
    batches: list[list[int]] = []
    for i in order:
        if batches and len(batches[-1]) < BATCH_ROWS:
            longest = len(prompts[batches[-1][0]][1])
            if (longest + new) * (len(batches[-1]) + 1) <= budget:
                batches[-1].append(i)
                continue
        batches.append([i])
    return batches


def _unpadded(model: Model, prompts: Sequence[tuple[int, ...]], new: int, names: Names) -> list[Generated]:
    """Generate for one batch in our own decoding loop."""
    model.net.eval()
    return [_until_stop(ids, model) for ids in decode(model, prompts, new, names)]


@torch.no_grad()
def _padded(model: Model, prompts: Sequence[tuple[int, ...]], new: int, names: Names) -> list[Generated]:
    """Generate for one batch through transformers.

    A decoder's prompts are padded on the left, so that all end together; an encoder's on the right, so that all begin
    together, as a prefix and the training have it.
    """
    stops = list(model.encoder.stops)
    ids, mask = _stacked(prompts, stops[0], left=model.kind == "decoder")
    config = GenerationConfig(max_new_tokens=new, do_sample=False, eos_token_id=stops, pad_token_id=stops[0])
    if model.kind == "encoder-decoder":
        config.decoder_start_token_id = model.net.config.decoder_start_token_id
    model.net.eval()
    with by_row(names, model.device):
        out = model.net.generate(
            input_ids=ids.to(model.device), attention_mask=mask.to(model.device), generation_config=config
        )
    start = 1 if model.kind == "encoder-decoder" else ids.shape[1]
    return [_until_stop(row, model) for row in out[:, start:].tolist()]


def _stacked(prompts: Sequence[tuple[int, ...]], pad: int, left: bool) -> tuple[Tensor, Tensor]:
    side = "left" if left else "right"
    ids = pad_sequence([torch.tensor(prompt) for prompt in prompts], True, pad, side)
    mask = pad_sequence([torch.ones(len(prompt), dtype=torch.long) for prompt in prompts], True, 0, side)
    return ids, mask


def _until_stop(ids: list[int], model: Model) -> Generated:
    end = next((i for i, token in enumerate(ids) if token in model.encoder.stops), None)
    kept = ids if end is None else ids[:end]
    text = str(model.encoder.tokenizer.decode(kept, skip_special_tokens=True))
    return Generated(tuple(kept), end is not None, text)
