"""ReCoRD (Zhang et al. 2018) as lm-eval's task `record` asks it.

lm-eval 0.4.13 cannot load its own: it imports a module that transformers 5 no
longer has. Prompts, choices and the two metrics are the same; the metrics are
those of SQuAD, which `tunesmith.metrics.text` has.
"""

from typing import Any

import numpy as np

from tunesmith.metrics.text import squad_exact, squad_f1

Doc = dict[str, Any]


def question(doc: Doc) -> str:
    """Give the passage, its highlights as a list that the query goes on with."""
    passage, *highlights = str(doc["passage"]).strip().split("\n@highlight\n")
    return passage + "\n\n" + "".join(f"  - {one}.\n" for one in highlights)


def choices(doc: Doc) -> list[str]:
    """Give the query with each entity in place of its gap."""
    return [_filled(doc, entity) for entity in doc["entities"]]


def target(doc: Doc) -> str:
    """Give the query with the first right entity."""
    return _filled(doc, doc["answers"][0])


def distinct(rows: Any) -> Any:
    """Give the rows with each entity and each answer once, in alphabetical order."""
    return rows.map(lambda doc: {key: sorted(set(doc[key])) for key in ("entities", "answers")})


def marks(doc: Doc, results: Any) -> dict[str, float]:
    """Mark the likeliest entity against all right ones, the best of which counts."""
    said = doc["entities"][int(np.argmax([result[0] for result in results]))]
    return {"f1": squad_f1(said, doc["answers"]), "em": squad_exact(said, doc["answers"])}


def _filled(doc: Doc, entity: str) -> str:
    return f"  - {doc['query']}".replace("@placeholder", entity)


RECORD: dict[str, Any] = {
    "task": "record",
    "dataset_path": "aps/super_glue",
    "dataset_name": "record",
    "output_type": "multiple_choice",
    "training_split": "train",
    "validation_split": "validation",
    "doc_to_text": question,
    "doc_to_target": target,
    "doc_to_choice": choices,
    "process_docs": distinct,
    "process_results": marks,
    "metric_list": [
        {"metric": "f1", "aggregation": "mean", "higher_is_better": True},
        {"metric": "em", "aggregation": "mean", "higher_is_better": True},
    ],
    "metadata": {"version": 2.0},
}
