"""Our engine behind the model interface of lm-eval: its tasks ask, our forward pass answers.

Texts become tokens as lm-eval's own model makes them, but for two things: a
continuation is never left without tokens where one spans the join (the split
moves back to the last boundary that both have), and a text is never given two
beginnings. What moved and what had to be cut is counted, task by task.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from jinja2 import TemplateError
from lm_eval.api.model import LM
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from tunesmith.errors import ConfigError, FitError
from tunesmith.inference import responses
from tunesmith.inference.generate import Generated
from tunesmith.inference.prefix import Ids
from tunesmith.inference.sampling import Sampling
from tunesmith.inference.score import Continuation
from tunesmith.models.load import Model

NEW_TOKENS = 256  # lm-eval's default, for tasks that name no limit
ROLLING_TOKENS = 2048  # lm-eval's window for a model that names no longest text
UNDERSTOOD = {"until", "max_gen_toks", "do_sample", "temperature", "top_p", "top_k"}


@dataclass
class Counts:
    """What happened to the requests of each task.

    `moved`: continuations whose first token also holds the context's last letters.
    `cut`: requests whose context lost its beginning, for the model has no room for all of it.
    """

    requests: Counter[str] = field(default_factory=Counter)
    moved: Counter[str] = field(default_factory=Counter)
    cut: Counter[str] = field(default_factory=Counter)
    read: Counter[str] = field(default_factory=Counter)
    written: Counter[str] = field(default_factory=Counter)


class Harness(LM):  # type: ignore[misc]
    """A loaded model as lm-eval sees it; `counts` tells what was asked of it.

    `on_batch`, which may be set later, is told how many requests have been answered, as they are.
    """

    def __init__(self, model: Model, seed: int = 0, on_batch: Callable[[int], None] | None = None) -> None:
        super().__init__()
        self.model = model
        self.counts = Counts()
        self.sizes: dict[int, int] = {}  # the tokens that each request for an answer has, by the request's identity
        self._seed = seed
        self.on_batch = on_batch
        self._alone: dict[str, Ids] = {}
        self._contexts: dict[Ids, Ids] = {}
        self._tokens: dict[int, int] = {}

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Give the log-likelihood in nats of each (context, continuation), and whether it is the greedy one.

        Raises FitError where a continuation alone exceeds the model's context.
        """
        pairs = self.model.encoder.pairs([request.args[:2] for request in requests])
        asked = [self._fits(request, *pair) for request, pair in zip(requests, pairs, strict=True)]
        found = responses.loglikelihoods(self.model, asked, self.on_batch)
        return [(one.total, one.greedy) for one in found]

    def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
        """Give the log-likelihood in nats of whole texts, read in windows that predict each token once."""
        windows = [(i, window) for i, request in enumerate(requests) for window in self._windows(request)]
        found = responses.loglikelihoods(self.model, [window for _, window in windows])
        totals = [0.0] * len(requests)
        for (i, _), one in zip(windows, found, strict=True):
            totals[i] += one.total
        if self.on_batch:
            self.on_batch(len(requests))
        return totals

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Give the text of each answer, cut before its stop text."""
        return [made.text for made in self.generated(requests)]

    def generated(self, requests: Sequence[Any]) -> list[Generated]:
        """Give the answers with their tokens. Raises ConfigError for a way to generate that we do not have."""
        times: Counter[str] = Counter()
        prompts, limits, sampling = [], [], []
        for request in requests:
            new, how = self._sampling(request)
            name = f"{request.task_name}/{request.doc_id}/{request.idx}"
            times[name] += 1  # a task that wants several draws repeats its request
            prompts.append((f"{name}/{times[name]}", self._prompt(request, new)))
            limits.append(new)
            sampling.append(how)
        answers = responses.generate(self.model, prompts, limits, self.on_batch, None, sampling)
        for i, request in enumerate(requests):
            self.counts.written[request.task_name] += len(answers[i].ids)
        return answers

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Render a conversation as the model's chat template does.

        A template without a system role gets that text before the first question. Raises ConfigError without one.
        """
        tokenizer: Any = self.model.encoder.tokenizer
        if not tokenizer.chat_template:
            raise ConfigError(f"--chat: {self.model.name} has no chat template", fix="leave --chat out")
        options = {"add_generation_prompt": add_generation_prompt, "continue_final_message": not add_generation_prompt}
        try:
            return str(tokenizer.apply_chat_template(chat_history, tokenize=False, **options))
        except TemplateError:
            return str(tokenizer.apply_chat_template(_without_system(chat_history), tokenize=False, **options))

    @property
    def tokenizer_name(self) -> str:
        """The model's name."""
        return self.model.name

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """Give the text of the chat template, None if it is not asked for."""
        tokenizer: Any = self.model.encoder.tokenizer
        return str(tokenizer.chat_template) if chat_template else None

    def _fits(self, request: Any, context: Ids, ids: Ids) -> Continuation:
        self.counts.requests[request.task_name] += 1
        self.counts.moved[request.task_name] += self._moved(request.args[0].rstrip(), context)
        room = None if self._unlimited else int(self.model.context or 0) + 1 - len(ids)
        context = self._fitted(request, context, room)
        self.counts.read[request.task_name] += len(context) + len(ids)
        return Continuation(self._shared(context), ids)

    def _moved(self, context: str, ids: Ids) -> bool:
        """Tell whether a context has other tokens by itself than `ids`, those in its pair."""
        if self.model.kind == "encoder-decoder" or not context:
            return False
        if context not in self._alone:
            self._alone = {context: self.model.encoder.whole(context)}  # a question's choices come one after another
        return ids[len(self.model.encoder.virtual) :] != self._alone[context]

    def _windows(self, request: Any) -> list[Continuation]:
        encoder = self.model.encoder
        ids = encoder.whole(request.args[0])
        ids = ids[1:] if ids[:1] == (encoder.begin,) else ids  # each text is read after that token anyway
        limit = self.model.context if not self._unlimited else _longest(encoder.tokenizer)
        size = int(limit or ROLLING_TOKENS) - len(encoder.virtual)
        self.counts.requests[request.task_name] += 1
        self.counts.read[request.task_name] += len(ids)
        pairs = map(make_disjoint_window, get_rolling_token_windows(list(ids), encoder.begin, size, 1))
        return [Continuation((*encoder.virtual, *before), tuple(after)) for before, after in pairs]

    def _prompt(self, request: Any, new: int) -> Ids:
        encoder = self.model.encoder
        ids = (*encoder.virtual, *encoder.whole(request.args[0]))
        room = None if self._unlimited else int(self.model.context or 0) - new
        self.counts.requests[request.task_name] += 1
        ids = self._fitted(request, ids, room)
        self.counts.read[request.task_name] += len(ids)
        self.sizes[id(request)] = len(ids)
        return ids

    def _sampling(self, request: Any) -> tuple[int, Sampling]:
        """Give how many tokens a request wants at most, and how they are chosen."""
        asked: dict[str, Any] = dict(normalize_gen_kwargs(request.args[1], NEW_TOKENS))
        odd = next((name for name in asked if name not in UNDERSTOOD), None)
        if odd is not None:
            raise ConfigError(
                f"{request.task_name} asks generation for '{odd}', which the engine does not do",
                fix=f"leave the task out; the engine knows {', '.join(sorted(UNDERSTOOD))}",
            )
        until = asked.get("until") or []
        stop = tuple(text for text in ([until] if isinstance(until, str) else until) if text)
        temperature = float(asked.get("temperature") or 0.0) if asked["do_sample"] else 0.0
        sampling = Sampling(temperature, float(asked.get("top_p", 1.0)), int(asked.get("top_k", 0)), self._seed, stop)
        return int(asked["max_gen_toks"]), sampling

    def _fitted(self, request: Any, ids: Ids, room: int | None) -> Ids:
        """Cut the beginning of a context that has no room, its virtual tokens excepted. Raises FitError."""
        if room is None or len(ids) <= room:
            return ids
        kept = len(self.model.encoder.virtual)
        if room - kept < 1:
            raise FitError(
                f"{request.task_name} question {request.doc_id}: what is to be written leaves no room for a question "
                f"in the context of {self.model.context}",
                fix="use a model with a longer context, or leave the task out",
            )
        self.counts.cut[request.task_name] += 1
        return ids[:kept] + ids[len(ids) - (room - kept) :]

    def _shared(self, context: Ids) -> Ids:
        """Give one object for equal contexts: MMLU with five shots has 56 168 requests of some thousand tokens."""
        if context not in self._contexts:
            known = tuple(self._tokens.setdefault(token, token) for token in context)
            self._contexts[known] = known
        return self._contexts[context]

    @property
    def _unlimited(self) -> bool:
        return self.model.kind == "encoder-decoder" or self.model.context is None


def _without_system(history: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    told = "".join(message["content"] for message in history if message["role"] == "system")
    rest = [message for message in history if message["role"] != "system"]
    return [{**rest[0], "content": f"{told}\n\n{rest[0]['content']}".strip()}, *rest[1:]]


def _longest(tokenizer: Any) -> int | None:
    """Give the longest text a tokenizer names; transformers writes 1e30 where it names none."""
    named = getattr(tokenizer, "model_max_length", None)
    return int(named) if named and named < 10**9 else None
