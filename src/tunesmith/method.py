"""Methods: the ways to move the weights, as records with the defaults that suit each.

A learning rate that suits one method ruins another: soft prompts at LoRA's
rate do not learn, full fine-tuning at theirs diverges. So every method brings
its own (`usual_rate`); docs/methods.md says where they come from.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from tunesmith.config import Record

# The names that decoder and T5 families give to the same two groups of layers.
GROUPS = {
    "attention": (
        *("q_proj", "k_proj", "v_proj", "o_proj", "qkv_proj", "c_attn", "query_key_value", "dense"),
        *("q", "k", "v", "o"),
    ),
    "mlp": (
        *("gate_proj", "up_proj", "down_proj", "gate_up_proj", "fc1", "fc2", "c_fc", "wi", "wi_0", "wi_1", "wo"),
        *("dense_h_to_4h", "dense_4h_to_h"),
    ),
}


def rate_by_width(rate: float, width: int) -> float:
    """Scale a learning rate that suits hidden size 2000 to another one.

    The fit and its exponent are those of "LoRA Without Regret" (Schulman et
    al., Thinking Machines, 2025) for the Llama family. docs/decisions/0005
    has our own check on the embedded model.
    """
    return float(f"{rate * (2000 / width) ** 0.781:.3g}")


class Way(Record):
    """What every method has: `name`, and a learning rate of its own.

    `rate` suits hidden size 2000 and is scaled to the model's, unless the method's weights do not grow with it.
    """

    rate: ClassVar[float]
    by_width: ClassVar[bool] = True

    def usual_rate(self, width: int) -> float:
        """Give the learning rate that suits a model of hidden size `width`."""
        return rate_by_width(self.rate, width) if self.by_width else self.rate

    def rate_factor(self, weight: str) -> float:
        """Give what the learning rate of the weight with this name is multiplied by."""
        return 1.0

    @property
    def virtual_tokens(self) -> int:
        """Count the virtual tokens that this method puts before every prompt."""
        return 0


class Full(Way):
    """Train every weight."""

    rate: ClassVar[float] = 5e-5
    name: Literal["full"] = "full"


class BitFit(Way):
    """Train the biases alone (Ben Zaken et al. 2022, arXiv:2106.10199).

    Llama and T5 have none: `without` says what happens there. `refuse` is an
    error, `norms` trains the norms' scales, `add` gives every linear layer of the blocks a bias of zeros.
    """

    rate: ClassVar[float] = 1e-3
    name: Literal["bitfit"] = "bitfit"
    without: Literal["refuse", "norms", "add"] = "refuse"


class Norms(Way):
    """Train the scales (and shifts) of the normalisation layers alone (arXiv:2312.11420)."""

    rate: ClassVar[float] = 1e-3
    name: Literal["norms"] = "norms"


class Layers(Way):
    r"""Train whole blocks: the `last` ones of every stack, or the weights whose name `pattern` is found in.

    `pattern` is a regular expression, as in `layers\.(10|11)\.mlp`; given, it alone decides.
    """

    rate: ClassVar[float] = 5e-5
    name: Literal["layers"] = "layers"
    last: PositiveInt = 4
    pattern: str | None = None


class SparseMask(Way):
    """Train the best `share` of the entries of the blocks' matrices (Fu et al. 2023, arXiv:2211.15583).

    `score` says which are best: `gradient`, the size of the gradient summed
    over the first `batches` steps; `fisher`, its square summed (Sung et al.
    2021, arXiv:2111.09839); `magnitude` of the weight; or `random`. `scope`
    chooses them in each `tensor`, or in all together (`global`).
    """

    rate: ClassVar[float] = 2e-4
    name: Literal["sparse_mask"] = "sparse_mask"
    share: float = Field(default=0.005, gt=0.0, le=1.0)
    score: Literal["gradient", "fisher", "magnitude", "random"] = "gradient"
    scope: Literal["tensor", "global"] = "tensor"
    batches: PositiveInt = 8


class Lora(Way):
    """Low-rank adapters (Hu et al. 2021, arXiv:2106.09685) on frozen weights.

    Targets all linear layers, which beats attention alone at the same size
    ("LoRA Learns Less and Forgets Less", arXiv:2405.09673). `targets` is
    `all-linear`, `attention`, `mlp`, or the names of linear layers. `ranks`
    gives layers whose name a pattern is found in a rank of their own.
    `rslora` scales by alpha / sqrt(rank) (arXiv:2312.03732), `dora` trains
    magnitudes apart (arXiv:2402.09353), `init` starts from the base weight's
    singular vectors (`pissa`, arXiv:2404.02948) or its QR factors (`olora`,
    arXiv:2406.01775). `b_rate` is LoRA+'s ratio of the rates of B and A (arXiv:2402.12354).
    """

    rate: ClassVar[float] = 5e-4
    name: Literal["lora"] = "lora"
    rank: PositiveInt = 16
    alpha: PositiveFloat = 32
    targets: str | tuple[str, ...] = "all-linear"
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    rslora: bool = False
    dora: bool = False
    init: Literal["default", "pissa", "olora"] = "default"
    b_rate: PositiveFloat = 1.0
    ranks: dict[str, PositiveInt] = Field(default_factory=dict)

    def rate_factor(self, weight: str) -> float:
        """Give LoRA+'s ratio for the B matrices."""
        return self.b_rate if "lora_B" in weight else 1.0


class Qlora(Lora):
    """LoRA on a base whose linear layers are frozen in 4 bits (Dettmers et al. 2023, arXiv:2305.14314).

    `quant` names the 16 values of a weight: `nf4`, the quantiles of a normal
    distribution, is the better for trained weights (section 4). `double_quant`
    packs the blocks' magnitudes too, which saves another 0.37 bits per weight. `init`
    can only be the default and there is no `dora`: both read the dense base.
    The rate is the paper's 2e-4 for hidden size 4096 (appendix B).
    """

    rate: ClassVar[float] = 3.5e-4
    name: Literal["qlora"] = "qlora"  # type: ignore[assignment]
    dora: Literal[False] = False
    init: Literal["default"] = "default"
    quant: Literal["nf4", "fp4"] = "nf4"
    double_quant: bool = True


def packed(method: Any) -> Qlora | None:
    """Give a LoRA with its base in 4 bits and all else as it is; None for a method that QLoRA cannot stand for."""
    if type(method) is not Lora or method.dora or method.init != "default":
        return None
    return Qlora(**{**method.model_dump(), "name": "qlora"})


class Further(Way):
    """One of the further methods that `peft` has, under its name there; `options` are the fields of its config.

    `targets` is as for `lora`; None leaves the choice to `peft`.
    """

    by_width: ClassVar[bool] = False
    rates: ClassVar[dict[str, float]] = {
        "hra": 1e-3,
        "loha": 2e-3,
        "lokr": 2e-3,
        "miss": 1e-3,
        "oft": 1e-3,
        "vera": 1e-2,
    }
    name: Literal["hra", "loha", "lokr", "miss", "oft", "vera"]
    targets: str | tuple[str, ...] | None = "all-linear"
    options: dict[str, Any] = Field(default_factory=dict)

    def usual_rate(self, width: int) -> float:
        """Give the learning rate that suits the method."""
        return self.rates[self.name]


class PromptTuning(Way):
    """Virtual tokens before the prompt, each a trained vector (Lester et al. 2021, arXiv:2104.08691).

    They start from the embeddings of `text`, repeated or cut to `tokens` of
    them (`init: text`), of the answers that the rows
    choose from (`labels`), or of words drawn from the vocabulary (`vocabulary`).
    """

    rate: ClassVar[float] = 1e-2
    by_width: ClassVar[bool] = False
    name: Literal["prompt_tuning"] = "prompt_tuning"
    tokens: PositiveInt = 20
    init: Literal["text", "labels", "vocabulary"] = "text"
    text: str = "Read the following carefully and do exactly what it asks, in the way that its examples were answered."

    @property
    def virtual_tokens(self) -> int:
        """Count the virtual tokens."""
        return self.tokens


class PTuning(Way):
    """Virtual tokens made by a small network, which is trained and then left out (Liu et al. 2021, 2103.10385)."""

    rate: ClassVar[float] = 1e-3
    by_width: ClassVar[bool] = False
    name: Literal["p_tuning"] = "p_tuning"
    tokens: PositiveInt = 20
    hidden: PositiveInt = 512

    @property
    def virtual_tokens(self) -> int:
        """Count the virtual tokens."""
        return self.tokens


class Prefix(Way):
    """Trained keys and values before every layer's own (Li and Liang 2021, arXiv:2101.00190).

    They start as those of `text`, repeated or cut to `tokens`: a random start
    would throw the model off, and a network that makes them, as in the paper, is then not needed.
    """

    rate: ClassVar[float] = 5e-3
    by_width: ClassVar[bool] = False
    name: Literal["prefix"] = "prefix"
    tokens: PositiveInt = 20
    text: str = PromptTuning.model_fields["text"].default

    @property
    def virtual_tokens(self) -> int:
        """Count the virtual tokens, whose places in the row the trained keys and values take."""
        return self.tokens


class Ia3(Way):
    """Scale keys, values and the inside of the MLP by trained vectors (Liu et al. 2022, arXiv:2205.05638)."""

    rate: ClassVar[float] = 5e-3
    by_width: ClassVar[bool] = False
    name: Literal["ia3"] = "ia3"


class Bottleneck(Way):
    """Small networks inside the blocks: down to `width`, a non-linearity, up again, added to what was there.

    `placement` is `houlsby` (after attention and after the MLP, Houlsby et al.
    2019, arXiv:1902.00751), `pfeiffer` (after the MLP alone, Pfeiffer et al.
    2021, arXiv:2005.00247) or `parallel` (beside the MLP, He et al. 2022,
    arXiv:2110.04366). The way up starts at zero, so that an untrained adapter changes nothing.
    """

    rate: ClassVar[float] = 1e-3
    by_width: ClassVar[bool] = False
    name: Literal["bottleneck"] = "bottleneck"
    width: PositiveInt = 48
    placement: Literal["houlsby", "pfeiffer", "parallel"] = "pfeiffer"
    activation: Literal["relu", "gelu", "silu"] = "relu"
    scale: NonNegativeFloat = 1.0


Method = Annotated[
    Full
    | BitFit
    | Norms
    | Layers
    | SparseMask
    | Lora
    | Qlora
    | Further
    | PromptTuning
    | PTuning
    | Prefix
    | Ia3
    | Bottleneck,
    Field(discriminator="name"),
]
