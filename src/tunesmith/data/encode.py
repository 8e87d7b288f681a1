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

    def __call__(self, text: str | list[str], *, add_special_tokens: bool = True) -> Any:
        """Give an object whose `input_ids` are the tokens of `text`, or of each text."""
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
        return (*self.virtual, *self._unclosed(self.tokenizer(self.prompt_text(prompt)).input_ids))

    def prompt_text(self, prompt: Prompt) -> str:
        """Give the exact text that the model reads before it answers."""
        if self.chat:
            return self._render(_messages(prompt), answered=False)
        shown = [turn.question + _gap(turn.question) + turn.answer for turn in (*prompt.shots, *prompt.history)]
        return "\n\n".join([*([prompt.system] if prompt.system else []), *shown, prompt.question])

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
        """Give the tokens of one context and its continuation, as `pairs` does."""
        return self.pairs([(context, continuation)])[0]

    def pairs(self, texts: Sequence[tuple[str, str]]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        """Give for each (context, continuation) the tokens of both, neither of them empty.

        White space at the end of the context goes over to the continuation, as words begin with it. A decoder's two
        texts are cut into tokens as one; the continuation begins where that differs from the context alone, so that
        a token which spans the join is scored as a whole. An empty context becomes the token that begins a text.
        Raises DataError for an empty continuation.
        """
        if any(not continuation for _, continuation in texts):
            raise DataError("a continuation is empty: it has no likelihood", fix="score a text of at least a token")
        bare = [context.rstrip() for context, _ in texts]
        tails = [context[len(cut) :] + after for cut, (context, after) in zip(bare, texts, strict=True)]
        different = list(dict.fromkeys(bare))
        alone = dict(zip(different, self.wholes(different), strict=True))
        if self.kind == "encoder-decoder":
            empty = (self.begin,)
            return [
                ((*self.virtual, *(alone[cut] or empty)), self._ids(tail))
                for cut, tail in zip(bare, tails, strict=True)
            ]
        both = self.wholes([cut + tail for cut, tail in zip(bare, tails, strict=True)])
        cuts = [_split(alone[cut] if cut else (), ids, self.begin) for cut, ids in zip(bare, both, strict=True)]
        return [((*self.virtual, *context), ids) for context, ids in cuts]

    def whole(self, text: str) -> tuple[int, ...]:
        """Give the tokens of a text as the tokenizer makes them, its special tokens included, but not twice."""
        return self.wholes([text])[0]

    def wholes(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """Give the tokens of each text, as `whole` does; many at once are cut in parallel."""
        opening = str(self.tokenizer.decode([self.begin]))
        found: dict[int, tuple[int, ...]] = {}
        for opened in (False, True):
            places = [i for i, text in enumerate(texts) if text.startswith(opening) == opened]
            if places:
                ids = self.tokenizer([texts[i] for i in places], add_special_tokens=not opened).input_ids
                found.update(zip(places, map(self._unclosed, ids), strict=True))
        return [found[i] for i in range(len(texts))]

    def _unclosed(self, ids: Sequence[int]) -> tuple[int, ...]:
        """Leave out the stop token with which a decoder's tokenizer may close a text: here something follows."""
        end = len(ids)
        while self.kind == "decoder" and end and ids[end - 1] in self.stops:
            end -= 1
        return tuple(ids[:end])

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
        turns = [*prompt.shots, *prompt.history]
        shown = [text for turn in turns for text in (turn.question, turn.answer)]
        for text in (prompt.system, prompt.question, prompt.answer, *shown):
            for token in self.tokenizer.all_special_tokens:
                if token in text:
                    raise DataError(
                        f"row {prompt.id}: its text contains the model's special token {token!r}",
                        fix="remove it from the row: the model would read it as structure",
                    )


def _messages(prompt: Prompt) -> list[dict[str, str]]:
    before = [*prompt.shots, *prompt.history]
    turns = [(role, text) for turn in before for role, text in (("user", turn.question), ("assistant", turn.answer))]
    system = [("system", prompt.system)] if prompt.system else []
    return [{"role": role, "content": text} for role, text in [*system, *turns, ("user", prompt.question)]]


def _split(alone: tuple[int, ...], both: tuple[int, ...], begin: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Cut the tokens of a whole text at the last place up to which they are those of its beginning alone."""
    n = min(common(alone, both), len(both) - 1)
    if n:
        return both[:n], both[n:]
    if both[0] == begin and len(both) > 1:
        return both[:1], both[1:]
    return (begin,), both


def common(one: Sequence[int], other: Sequence[int]) -> int:
    """Count the tokens that both begin with."""
    same, most = 0, min(len(one), len(other))
    while same < most:
        middle = (same + most + 1) // 2
        if one[same:middle] == other[same:middle]:
            same = middle
        else:
            most = middle - 1
    return same


def _gap(question: str) -> str:
    """Give the space between a plain question and its answer, unless it ends with one."""
    return "" if question[-1:].isspace() else " "
