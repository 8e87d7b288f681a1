"""The verb `eval`: a model answers the questions of a split; answers and scores become a run folder."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tunesmith.adapters.folder import Adapter, load_trained, trained
from tunesmith.data.encode import Encoder
from tunesmith.data.task import Split, Task
from tunesmith.data.template import Prompt
from tunesmith.errors import ConfigError
from tunesmith.inference import responses
from tunesmith.inference.generate import Generated
from tunesmith.metrics import metric
from tunesmith.metrics.score import score
from tunesmith.models import device
from tunesmith.models.load import Model, find, load, load_encoder
from tunesmith.models.provenance import provenance
from tunesmith.runs.lock import only_writer
from tunesmith.runs.progress import Watch
from tunesmith.runs.records import Answer, Score, Summary
from tunesmith.runs.run import Run, begun, vacant


@dataclass(frozen=True)
class Question:
    """What to evaluate: which rows of a task, asked how."""

    task: Task
    split: Split = "test"
    shots: int = 0
    template: str | None = None
    limit: int | None = None
    seed: int = 0

    def prompts(self) -> list[Prompt]:
        """Render the questions. Raises DataError."""
        return self.task.prompts(self.split, self.shots, self.seed, self.template, self.limit)

    @property
    def language(self) -> str:
        """Give the language of the wording that is asked: that of the answers."""
        named = self.template not in (None, "any")
        return (self.task.template(str(self.template)) if named else self.task.templates[0]).language


def evaluate(
    target: str,
    question: Question,
    folder: Path,
    command: Sequence[str] = (),
    strength: float = 1.0,
    fresh: bool = False,
) -> Run:
    """Let a model, or what a training run made, answer `question`; write the new run folder `folder`.

    `target` is anything `find` knows, the folder of a training run, or that of
    an adapter, ours or peft's, of whose effect `strength` (0 to 1) is taken.
    Answers that are kept from before are not computed again, unless `fresh`;
    so an evaluation that was stopped goes on, in its own folder too. Raises TunesmithError.
    """
    if not begun(folder, "eval"):
        vacant(folder)
    adapter = trained(Path(target))
    if adapter is None and strength != 1.0:
        raise ConfigError(
            f"--strength: {target} is a model, not an adapter", fix="leave it out, or name a training run"
        )
    prompts = question.prompts()
    for name in question.task.metrics:
        metric(name, question.language)
    model = load_trained(adapter, strength=strength) if adapter else _load_base(target)
    encoded = [(prompt.id, _encode(model.encoder, prompt)) for prompt in prompts]
    asked = _asked(target, adapter, model, question, prompts)
    with only_writer(folder):
        run = Run.begin(folder, {**asked, **({"strength": strength} if adapter else {})})
        run.write_json("provenance.json", provenance(model, question.task.provenance(), question.seed, command))
        device.reset_peak()
        started = time.perf_counter()
        with Watch("answer", len(prompts)) as watch, responses.counted("fresh" if fresh else "on") as count:
            made = responses.generate(model, encoded, question.task.generation.max_new_tokens, watch.advance)
        seconds = time.perf_counter() - started
        answers = [_answer(model, *pair) for pair in zip(prompts, encoded, made, strict=True)]
        run.write_lines(f"answers/{question.task.name}.jsonl", answers)
        run.write_lines("scores.jsonl", score_answers(question, answers, prompts[0].template))
        run.finish(_summary(model, answers, count, seconds))
    return run


def score_answers(question: Question, answers: Sequence[Answer], template: str) -> list[Score]:
    """Mark the answers with each metric of the task. Raises DataError if there are none."""
    said, wanted = [answer.answer for answer in answers], [answer.references for answer in answers]
    marks = score(said, wanted, question.task.metrics, question.language, question.seed)
    return [
        Score(
            task=question.task.name,
            split=question.split,
            metric=mark.metric,
            value=mark.value,
            low=mark.low,
            high=mark.high,
            n=mark.n,
            shots=question.shots,
            template=template,
            signature=mark.signature,
        )
        for mark in marks
    ]


def _load_base(target: str) -> Model:
    place = find(target)
    return load(place, load_encoder(place))


def _encode(encoder: Encoder, prompt: Prompt) -> tuple[int, ...]:
    encoder.check_text(prompt)
    return encoder.prompt_ids(prompt)


def _answer(model: Model, prompt: Prompt, encoded: tuple[str, tuple[int, ...]], made: Generated) -> Answer:
    return Answer(
        id=prompt.id,
        question=prompt.question,
        prompt=model.encoder.prompt_text(prompt),
        answer=model.encoder.text(made.ids),
        references=prompt.references,
        prompt_tokens=len(encoded[1]),
        answer_tokens=len(made.ids),
        finished=made.finished,
    )


def _asked(
    target: str, adapter: Adapter | None, model: Model, question: Question, prompts: Sequence[Prompt]
) -> dict[str, object]:
    return {
        "verb": "eval",
        "model": model.name if adapter is None else adapter.base,
        "method": adapter.method.name if adapter else None,
        "adapter": target if adapter else None,
        "task": question.task.name,
        "split": question.split,
        "shots": question.shots,
        "template": prompts[0].template,
        "language": question.language,
        "limit": question.limit,
        "seed": question.seed,
        "metrics": list(question.task.metrics),
        "max_new_tokens": question.task.generation.max_new_tokens,
    }


def _summary(model: Model, answers: Sequence[Answer], count: responses.Count, seconds: float) -> Summary:
    prompt_tokens = sum(answer.prompt_tokens for answer in answers)
    answer_tokens = sum(answer.answer_tokens for answer in answers)
    return Summary(
        tokens=prompt_tokens + answer_tokens,
        answer_tokens=answer_tokens,
        seconds=seconds,
        tokens_per_second=count.tokens / seconds,
        peak_memory_bytes=device.peak_bytes(),
        total_parameters=model.parameters(),
        prompt_tokens=prompt_tokens / len(answers),
        unfinished_answers=sum(not answer.finished for answer in answers),
        empty_answers=sum(not answer.answer for answer in answers),
        cached_answers=count.cached,
    )
