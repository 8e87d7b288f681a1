"""Terms: what the words of the field mean, for a reader to whom they are new."""

from collections.abc import Sequence

from tunesmith.reporting.gather import Gathered
from tunesmith.reporting.ladders import Ladder
from tunesmith.reporting.numbers import metric_title

MARKS = {
    "rouge1": "How many words the answer shares with the reference: F1, the harmonic mean of precision and recall."
    " It is 0 if they share none, 1 if they have the same words.",
    "rouge2": "How many pairs of neighbouring words the answer shares with the reference (F1).",
    "rougeL": "How many words the answer and the reference have in the same order, gaps allowed (F1).",
    "rougeLsum": "As ROUGE-L, line by line: each reference line against all lines of the answer.",
    "bleu": "How many runs of one to four words all answers together share with the references; made for translation.",
    "chrf": "How many runs of one to six characters all answers together share with the references.",
    "ter": "How many words would have to be changed, added, removed or moved, for each word of the reference.",
    "squad_f1": "How many words a short answer shares with the reference, articles left out (F1).",
    "accuracy": "The share of answers that are the right label.",
    "macro_f1": "F1 of each label, and their mean: a rare label counts as much as a common one.",
    "matthews": "The correlation of given and right labels: 0 is chance, 1 is all right.",
    "unparsed": "The share of answers in which no answer was found; each of them counts as wrong.",
    "exact_match": "The share of answers with the very words of a reference; letter case and punctuation do not count.",
}
SCORED = {
    "Zero-shot, n-shot": "The model is given the question alone, or n worked examples before it.",
    "95 % interval": "By bootstrap: the rows are drawn again 2,000 times, and the middle 95 % of the scores are taken. "
    "For a share of right answers by Wilson's formula.",
}
COMPARED = {
    "p": "By approximate randomisation: the two answers to each row are swapped at random, many times; p is the share "
    "of times that the difference, of either sign, is at least as large as the one seen. For shares of right "
    "answers it is counted exactly (McNemar's test).",
}
METHODS = {
    "lora": (
        "LoRA",
        "Low-rank adapters: the model's own weights stay as they are, and small added matrices are trained. "
        "The rank sets their size, alpha how strongly they count, the targets where they are added.",
    ),
    "qlora": (
        "QLoRA",
        "LoRA on a model whose linear layers are rounded to 4 bits, a quarter of the memory, and stay so.",
    ),
    "ia3": ("IA3", "Keys, values and the inside of the MLP are scaled by trained vectors; all else stays as it is."),
    "bitfit": ("BitFit", "Only the biases are trained."),
    "norms": ("Norms", "Only the scales of the normalisation layers are trained."),
    "layers": ("Some layers", "Whole layers are trained, all others stay as they are."),
    "prompt_tuning": (
        "Prompt tuning",
        "Virtual tokens stand before every prompt; their vectors are trained, the model stays as it is.",
    ),
    "p_tuning": ("P-tuning", "Virtual tokens stand before every prompt; a small network makes their vectors."),
    "prefix": (
        "Prefix tuning",
        "Every layer attends to trained keys and values before those of the prompt.",
    ),
    "bottleneck": (
        "Bottleneck adapters",
        "Small trained networks are added inside the blocks.",
    ),
    "sparse_mask": ("Sparse mask", "A chosen share of the weights' entries is trained; all others cannot move."),
    "loha": ("LoHa", "As LoRA, with an added matrix that is two low-rank products multiplied entry by entry."),
    "lokr": ("LoKr", "As LoRA, with an added matrix that is a Kronecker product of small ones."),
    "vera": ("VeRA", "As LoRA, with matrices drawn at random that stay so; two vectors around them are trained."),
    "oft": ("OFT", "The inputs of layers are turned by trained rotations, in blocks."),
    "hra": ("HRA", "The inputs of layers are turned by a chain of trained reflections."),
    "miss": ("MiSS", "As LoRA, with an added matrix made of a few trained rows that are shared out over all."),
    "full": ("Full fine-tuning", "Every weight of the model is trained, and a whole new model is saved."),
}
TRAINED = {
    "Step, epoch": "One step changes the weights once; one epoch is one pass over all training rows.",
    "Learning rate": "How far one step may move the weights; the schedule says how it changes over the training.",
    "Loss": "The mean of -ln(p) over the tokens of the reference answers, where p is the probability that the model "
    "gives to the token; its unit is the nat.",
}
ALWAYS = {"Token": "A piece of text as the model reads it: a word, or a part of one."}


def terms(told: Gathered, ladders: Sequence[Ladder]) -> dict[str, str]:
    """Give the terms that the page of these runs uses, with their meaning."""
    metrics = dict.fromkeys(name for ladder in ladders for name in ladder.metrics)
    methods = dict.fromkeys(_methods(told))
    return {
        **ALWAYS,
        **(SCORED if ladders else {}),
        **(COMPARED if any(len(ladder.lines) > 1 for ladder in ladders) else {}),
        **{metric_title(name): MARKS[name] for name in metrics if name in MARKS},
        **dict(METHODS[name] for name in methods if name in METHODS),
        **(TRAINED if told.trained else {}),
    }


def _methods(told: Gathered) -> list[str]:
    """Name the methods of the trainings, and of evaluations whose training was not given."""
    named = [run.asked()["method"]["name"] for run in told.trained]
    return named + [str(one.run.asked().get("method")) for one in told.evaluated]
