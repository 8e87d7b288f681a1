"""The verb `merge`: adapters become part of the model they were trained on, or one adapter, with a proof.

The result is read back from disk and set against the adapter itself before it
gets its name: a folder that is there has been proven.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveInt
from torch import Tensor

from tunesmith import methods
from tunesmith.adapters import apply, proof
from tunesmith.adapters.folder import Adapter, load_base, load_trained, trained, write_origin
from tunesmith.adapters.merge import concatenated, dare, ties, weighted_sum
from tunesmith.adapters.proof import Fidelity, Held
from tunesmith.config import Record
from tunesmith.errors import ConfigError, ModelError, RunError
from tunesmith.method import Full, Lora, Qlora
from tunesmith.methods.injected import Injected
from tunesmith.methods.plain import Factors
from tunesmith.models.device import dtype_name
from tunesmith.models.embedded import HUB_IDS
from tunesmith.models.load import Model, find, load, load_as_stored, load_encoder
from tunesmith.models.saving import disk_errors

How = Literal["sum", "cat", "ties", "dare", "svd"]
PROVENANCE = "merge.json"
LORA = ("cat", "svd")  # give a LoRA adapter; the others give a model
EXACT = ("sum", "cat")  # have one right answer, so that a result which is not it can be refused
# SmolLM2-135M in bf16, nats from fp32: LoRA unmerged 0.0010 to 0.0011 and merged 0.0015 to 0.0017, DoRA 0.0013 and
# 0.0011, IA3 0.0013 and 0.0012. All of it is bf16's rounding; more than ten times that is not.
MAX_KL = 0.02


class Merging(Record):
    """How adapters are merged; `weights` are how much of each is taken, 1 by default.

    `density` is the share of numbers that TIES and DARE keep, `rank` that of
    the adapter that `svd` makes, `seed` that of DARE. Above `max_kl` nats an
    exact result is refused.
    """

    how: How = "sum"
    weights: tuple[float, ...] = ()
    density: float = Field(default=0.5, gt=0.0, le=1.0)
    rank: PositiveInt = 16
    seed: int = 0
    max_kl: NonNegativeFloat = MAX_KL


class Part(Record):
    """One of the adapters that have been merged, and how much of it."""

    folder: str
    method: str
    weight: float
    template: str
    prompting: str


class Merged(Record):
    """What has been merged, onto which base, and how near it comes; `merge.json` holds it."""

    folder: Path
    base: str
    base_sha256: str
    dtype: str
    merging: Merging
    parts: tuple[Part, ...]
    proof: tuple[Fidelity, ...] = ()
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Say it in a few plain lines."""
        made = "a LoRA adapter of" if self.merging.how in LORA else "merged into"
        parts = ", ".join(f"{part.weight:g} x {part.folder} ({part.method})" for part in self.parts)
        head = f"{parts}: {made} {self.base} {self.base_sha256[:12]}, {self.dtype}"
        return [head, *self.notes, *(one.line() for one in self.proof)]


def merge(runs: Sequence[Path | str], out: Path, merging: Merging | None = None) -> Merged:
    """Merge what training runs made, or adapters of peft's, into the new folder `out`.

    One run becomes part of its base; several are combined as `merging.how`
    says. Raises ModelError for adapters of different bases, those that are no
    change of weights, and a result that does not say what they say; nothing is then left in `out`.
    """
    merging = merging or Merging()
    if out.exists():
        raise RunError(f"{out}: exists already", fix="name a new folder; nothing is ever overwritten")
    adapters = [_found(Path(run)) for run in runs]
    weights = _weights(merging, len(adapters))
    base = _common_base(adapters)
    aside = out.parent / f".{out.name}.part"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        merged = _write(adapters, weights, merging, base, aside)
        facts = merged.model_copy(update={"proof": _proof(adapters, weights, merged, aside)})
        _refuse(facts)
        _record(facts, aside)
        aside.rename(out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return facts.model_copy(update={"folder": out})


def _found(target: Path) -> Adapter:
    found = trained(target)
    if found is None:
        raise ModelError(f"{target}: is no training run and no adapter", fix="name what `tunesmith train` has made")
    return found


def _weights(merging: Merging, adapters: int) -> tuple[float, ...]:
    if merging.weights and len(merging.weights) != adapters:
        raise ConfigError(
            f"--weights: {len(merging.weights)} of them for {adapters} runs", fix="give one number for each run"
        )
    return merging.weights or (1.0,) * adapters


def _common_base(adapters: Sequence[Adapter]) -> Model:
    """Load the base in fp32. Raises ModelError if there is nothing to merge, or the adapters' bases are not one."""
    first = adapters[0]
    if len(adapters) == 1 and isinstance(first.method, Full):
        raise ModelError(f"{first.folder}: is a model already: every weight has been trained", fix="use it as it is")
    base = load_base(first, "float32")
    for other in adapters[1:]:
        sha256 = other.base_sha256 or load_base(other, "float32").sha256
        if sha256 != base.sha256:
            raise ModelError(
                f"{other.folder}: was trained on {other.base} {sha256[:12]}, "
                f"{first.folder} on {first.base} {base.sha256[:12]}",
                fix="merge adapters of one base",
            )
    return base


def _write(
    adapters: Sequence[Adapter], weights: Sequence[float], merging: Merging, base: Model, folder: Path
) -> Merged:
    """Write the result into `folder`, and tell what it is."""
    place = find(adapters[0].base)
    net = load_as_stored(place, base.kind).to(base.device)
    notes = _notes(adapters, place.gguf is not None)
    with disk_errors():
        if merging.how in LORA:
            factors = _concatenated(adapters, weights) if merging.how == "cat" else {}
            if merging.how == "svd":
                factors, told = _truncated(base, _combined(adapters, weights, "sum", merging), merging.rank)
                notes.append(told)
            _write_adapter(adapters, base, factors, folder)
        else:
            net = apply.add(net, _combined(adapters, weights, merging.how, merging))
            net.save_pretrained(folder)
            _tokenizer(adapters, base).save_pretrained(folder)
    pairs = zip(adapters, weights, strict=True)
    return Merged(
        folder=folder,
        base=adapters[0].base,
        base_sha256=base.sha256,
        dtype=dtype_name(net.dtype),
        merging=merging,
        parts=tuple(_part(adapter, weight) for adapter, weight in pairs),
        notes=tuple(notes),
    )


def _part(adapter: Adapter, weight: float) -> Part:
    return Part(
        folder=str(adapter.folder),
        method=adapter.method.name,
        weight=weight,
        template=adapter.template,
        prompting=adapter.prompting,
    )


def _notes(adapters: Sequence[Adapter], gguf: bool) -> list[str]:
    told = [
        f"{one.folder}: was trained on 4-bit weights and is merged into those they were made of, in full precision"
        for one in adapters
        if isinstance(one.method, Qlora)
    ]
    return [*told, "the base's quantised blocks are unpacked into bfloat16"] if gguf else told


def _tokenizer(adapters: Sequence[Adapter], base: Model) -> Any:
    """Give the base's tokenizer; where all were trained without its chat template, without it."""
    tokenizer: Any = base.encoder.tokenizer
    if all(one.prompting == "plain" for one in adapters):
        tokenizer.chat_template = None
    return tokenizer


def live(adapter: Adapter, dtype: str) -> Model:
    """Load the base in full precision, whatever it was trained on, with the adapter on it, unmerged."""
    if isinstance(adapter.method, Full):
        return load_trained(adapter, dtype)
    model = load_base(adapter, dtype)
    method = adapter.method
    # On its dense base a QLoRA adapter is a LoRA adapter.
    methods.load(model, Lora() if isinstance(method, Qlora) else method, adapter.folder)
    return model


def deltas(adapter: Adapter) -> dict[str, Tensor]:
    """Give what an adapter adds to the weights of its base, in fp32. Raises ModelError if that is not what it does."""
    model = live(adapter, "float32")
    if isinstance(adapter.method, Full):
        base = load_base(adapter, "float32").net
        return {name: p.data - base.get_parameter(name).data for name, p in model.net.named_parameters()}
    try:
        return model.fits[methods.TRAINED].deltas()
    except ModelError as wrong:
        raise ModelError(f"{adapter.folder} ({adapter.method.name}): {wrong.what}", fix=wrong.fix) from None


def _combined(adapters: Sequence[Adapter], weights: Sequence[float], how: How, merging: Merging) -> dict[str, Tensor]:
    """Give one change for each weight that any of the adapters changes."""
    every = [deltas(adapter) for adapter in adapters]
    found = {}
    for name in dict.fromkeys(name for one in every for name in one):
        parts = [one[name] for one in every if name in one]
        shares = [share for one, share in zip(every, weights, strict=True) if name in one]
        if how == "ties":
            found[name] = ties(parts, shares, merging.density)
        elif how == "dare":
            found[name] = dare(parts, shares, merging.density, merging.seed, name)
        else:
            found[name] = weighted_sum(parts, shares)
    return found


def _concatenated(adapters: Sequence[Adapter], weights: Sequence[float]) -> dict[str, Factors]:
    every = [_factors(adapter) for adapter in adapters]
    return {
        path: concatenated(
            [one[path] for one in every if path in one],
            [share for one, share in zip(every, weights, strict=True) if path in one],
        )
        for path in dict.fromkeys(path for one in every for path in one)
    }


def _factors(adapter: Adapter) -> dict[str, Factors]:
    told = f"{adapter.folder} ({adapter.method.name})"
    fit = None if isinstance(adapter.method, Full) else live(adapter, "float32").fits[methods.TRAINED]
    if not isinstance(fit, Injected):
        raise ModelError(f"{told}: only plain LoRA has two factors to take on", fix="--how sum, or --how svd")
    try:
        return fit.factors()
    except ModelError as wrong:
        raise ModelError(f"{told}: {wrong.what}", fix=wrong.fix) from None


def _truncated(base: Model, changes: Mapping[str, Tensor], rank: int) -> tuple[dict[str, Factors], str]:
    found = apply.truncated(base.net, changes, rank)
    whole = sum(float(change.square().sum()) for change in changes.values())
    if not whole:
        raise ModelError("the adapters change nothing: there is nothing to cut to a rank", fix="use other --weights")
    kept = sum(float((one.up.norm(dim=0) ** 4).sum()) for one in found.values())  # columns are of length root of s
    return found, f"rank {rank} keeps {100 * kept / whole:.1f} % of the change's squared length"


def _write_adapter(adapters: Sequence[Adapter], base: Model, factors: Mapping[str, Factors], folder: Path) -> None:
    first = adapters[0]
    method = apply.write_lora(folder, base.net, factors, HUB_IDS.get(first.base, first.base))
    one_wording = all(one.template == first.template for one in adapters)
    one_form = all(one.prompting == first.prompting for one in adapters)
    changed = {
        "folder": folder,
        "base_sha256": base.sha256,
        "method": method,
        "template": first.template if one_wording else "any",
        "prompting": first.prompting if one_form else "auto",
    }
    write_origin(first.model_copy(update=changed), folder)


def _proof(adapters: Sequence[Adapter], weights: Sequence[float], merged: Merged, folder: Path) -> tuple[Fidelity, ...]:
    """Read the result back and set it against what it should say."""
    dtype = "bfloat16" if merged.dtype == "bfloat16" else "float32"
    made = {f"merged, in {dtype},": _reloaded(folder, adapters[0].prompting, dtype)}
    (model,) = made.values()
    helds = [_held(one, model) for one in adapters]
    if merged.merging.how not in EXACT:
        pairs = zip(adapters, helds, strict=True)
        return tuple(_against(made, str(one.folder), live(one, "float32"), held)[0] for one, held in pairs)
    alone = tuple(weights) == (1.0,)
    name = "the adapter in fp32" if alone else "the base plus the sum in fp32"
    reference = live(adapters[0], "float32") if alone else _summed(adapters, weights, merged.merging)
    noisy = {f"the adapter in {dtype}": live(adapters[0], dtype)} if alone and dtype != "float32" else {}
    if alone and isinstance(adapters[0].method, Qlora):
        noisy["the adapter on the 4-bit base that it was trained on"] = load_trained(adapters[0])
    told: list[Fidelity] = []
    for held in {held.told: held for held in helds}.values():
        first, *others = _against({**made, **noisy}, name, reference, held)
        told += [first.model_copy(update={"limit": merged.merging.max_kl}), *others]
    return tuple(told)


def _held(adapter: Adapter, model: Model) -> Held:
    return proof.held_out(adapter, model.encoder, model.context)


def _reloaded(folder: Path, prompting: str, dtype: str) -> Model:
    adapter = trained(folder)
    if adapter is not None:
        return live(adapter, dtype)
    place = find(str(folder))
    return load(place, load_encoder(place, "plain" if prompting == "plain" else "auto"), dtype)


def _summed(adapters: Sequence[Adapter], weights: Sequence[float], merging: Merging) -> Model:
    base = load_base(adapters[0], "float32")
    return replace(base, net=apply.add(base.net, _combined(adapters, weights, "sum", merging)))


def _against(models: Mapping[str, Model], name: str, reference: Model, held: Held) -> list[Fidelity]:
    wanted = (name, proof.answers(reference, held.rows))
    made = [(what, proof.answers(model, held.rows)) for what, model in models.items()]
    return [proof.fidelity(one, wanted, held.told) for one in made]


def _refuse(merged: Merged) -> None:
    for one in merged.proof:
        if one.limit is not None and not one.kl <= one.limit:
            raise ModelError(
                f"the merged weights do not say what was to be merged: {one.line()}, above {one.limit:g} nats",
                fix=f"keep the adapter, or accept the loss with --max-kl {2 * one.kl:.1g}",
            )


def _record(merged: Merged, folder: Path) -> None:
    facts = merged.model_dump(mode="json", exclude={"folder"})
    (folder / PROVENANCE).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
