"""Encoding: from the text of a `Prompt` to token ids, and which of them carry loss.

One function builds the prompt's tokens for training and for evaluation alike,
so what is trained is what is served. The answer's tokens are found by
rendering the chat template with and without the answer, never by searching
for a marker among tokens; they end with the stop token that the model is
asked to produce, and it carries loss.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from tunesmith.data.template import Prompt
from tunesmith.errors import DataError, ModelError

Kind = Literal["decoder", "encoder-decoder"]


class Tokenizer(Protocol):
    """The part of a Hugging Face tokenizer that encoding needs."""

    chat_template: Any
    eos_token_id: Any
    all_special_tokens: list[str]

    def __call__(self, text: str, *, add_special_tokens: bool = True) -> Any:
        """Give an object whose `input_ids` are the tokens of `text`."""
        ...

    def apply_chat_template(self, conversation: Any, *, tokenize: bool, add_generation_prompt: bool) -> Any:
        """Render a conversation as text."""
        ...

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = False) -> Any:
        """Give the text of tokens."""
        ...


@dataclass(frozen=True)
class Encoded:
    """Token ids of one row: `prompt` carries no loss, `answer` carries all of it.

    A decoder reads them as one sequence; an encoder-decoder reads the prompt
    and writes the answer. `task` names the task the row belongs to.
    """

    id: str
    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    task: str = ""

    @property
    def size(self) -> int:
        """Count the tokens of both parts."""
        return len(self.prompt) + len(self.answer)


@dataclass(frozen=True)
class Encoder:
    """How one model wants to be spoken to: its tokenizer, form of prompt, stop tokens.

    `virtual` are the negative ids of virtual tokens, trained ones that come before every prompt.
    """

    tokenizer: Tokenizer
    kind: Kind
    chat: bool
    stops: tuple[int, ...]
    virtual: tuple[int, ...] = ()

    def encode(self, prompt: Prompt, task: str = "") -> Encoded:
        """Give the tokens of a question of `task` and its answer.

        Raises DataError if the text contains a special token of the model:
        it would be read as structure, not as text.
        """
        self.check_text(prompt)
        return Encoded(prompt.id, self.prompt_ids(prompt), self.answer_ids(prompt), task)

    def prompt_ids(self, prompt: Prompt) -> tuple[int, ...]:
        """Give the tokens the model reads before it answers."""
        if self.chat:
            return (*self.virtual, *self._ids(self.prompt_text(prompt)))
        ids = tuple(self.tokenizer(self.prompt_text(prompt)).input_ids)
        # A decoder's tokenizer may close every text with its stop token: here the answer follows.
        while self.kind == "decoder" and ids and ids[-1] in self.stops:
            ids = ids[:-1]
        return (*self.virtual, *ids)

    def prompt_text(self, prompt: Prompt) -> str:
        """Give the exact text that the model reads before it answers."""
        if self.chat:
            return self._render(_messages(prompt), answered=False)
        shown = [shot.question + _gap(shot.question) + shot.answer for shot in prompt.shots]
        return "\n\n".join([*shown, prompt.question])

    def answer_ids(self, prompt: Prompt) -> tuple[int, ...]:
        """Give the tokens the model is to write: the answer and the stop token."""
        if not self.chat:
            gap = _gap(prompt.question) if self.kind == "decoder" else ""
            ids = self._ids(gap + prompt.answer)
            return ids if ids[-1:] == self.stops[:1] else (*ids, self.stops[0])
        tail = self._tail(prompt)
        ids = self._ids(tail)
        # After the stop token the template may go on (a newline); the model never gets to write that.
        end = next((i for i, token in enumerate(ids) if token in self.stops), None)
        return (*ids, self.stops[0]) if end is None else ids[: end + 1]

    def pair(self, context: str, continuation: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Give the tokens of `context`, and those of `continuation` after it, neither of them empty.

        White space at the end of the context goes over to the continuation, as words begin with it. A decoder's two
        texts are cut into tokens as one; the continuation begins where that differs from the context alone, so that
        a token which spans the join is scored as a whole. An empty context becomes the token that begins a text.
        Raises DataError for an empty continuation.
        """
        if not continuation:
            raise DataError("a continuation is empty: it has no likelihood", fix="score a text of at least a token")
        bare = context.rstrip()
        context, continuation = bare, context[len(bare) :] + continuation
        if self.kind == "encoder-decoder":
            return (*self.virtual, *(self.whole(context) or (self.begin,))), self._ids(continuation)
        before, both = self.whole(context) if context else (), self.whole(context + continuation)
        n = next((i for i, (one, other) in enumerate(zip(before, both, strict=False)) if one != other), len(before))
        n = min(n, len(before), len(both) - 1)
        if n == 0:
            n = 1 if len(both) > 1 and both[0] == self.begin else 0
            before = both[:1] if n else (self.begin,)
        return (*self.virtual, *before[: n or 1]), both[n:]

    def whole(self, text: str) -> tuple[int, ...]:
        """Give the tokens of a text as the tokenizer makes them, its special tokens included, but not twice."""
        begin = self.begin
        opened = text.startswith(str(self.tokenizer.decode([begin])))
        ids = tuple(self.tokenizer(text, add_special_tokens=not opened).input_ids)
        while self.kind == "decoder" and ids and ids[-1] in self.stops:
            ids = ids[:-1]
        return ids

    @property
    def begin(self) -> int:
        """The token that stands for the beginning of a text: the tokenizer's own, else its stop token."""
        found = getattr(self.tokenizer, "bos_token_id", None)
        return self.stops[0] if found is None else int(found)

    def text(self, ids: Sequence[int]) -> str:
        """Give the text of generated tokens, without stop tokens and outer white space."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True)).strip()

    def _tail(self, prompt: Prompt) -> str:
        """Give what the chat template adds when the question is answered."""
        before = self.prompt_text(prompt)
        after = self._render([*_messages(prompt), {"role": "assistant", "content": prompt.answer}], answered=True)
        if not after.startswith(before):
            raise ModelError(
                "the model's chat template renders a question differently once it is answered",
                fix="-s prompting=plain, or correct the tokenizer's chat template",
            )
        return after[len(before) :]

    def _render(self, messages: list[dict[str, str]], answered: bool) -> str:
        return str(self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=not answered))

    def _ids(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False).input_ids)

    def check_text(self, prompt: Prompt) -> None:
        """Refuse text that holds a special token of the model. Raises DataError."""
        shown = [text for shot in prompt.shots for text in (shot.question, shot.answer)]
        for text in (prompt.question, prompt.answer, *shown):
            for token in self.tokenizer.all_special_tokens:
                if token in text:
                    raise DataError(
                        f"row {prompt.id}: its text contains the model's special token {token!r}",
                        fix="remove it from the row: the model would read it as structure",
                    )


def _messages(prompt: Prompt) -> list[dict[str, str]]:
    turns = [
        (role, text) for shot in prompt.shots for role, text in (("user", shot.question), ("assistant", shot.answer))
    ]
    return [{"role": role, "content": text} for role, text in [*turns, ("user", prompt.question)]]


def _gap(question: str) -> str:
    """Give the space between a plain question and its answer, unless it ends with one."""
    return "" if question[-1:].isspace() else " "
