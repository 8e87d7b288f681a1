"""The library of wordings, and the ready task files that use it."""

import re
from collections import Counter
from itertools import chain
from pathlib import Path

import pytest

from tests.conftest import needs_shared
from tunesmith.data.rows import Row
from tunesmith.data.task import load_task
from tunesmith.data.template import derived, holds
from tunesmith.data.wordings import families, family
from tunesmith.errors import DataError
from tunesmith.metrics import metric

TASKS = Path(__file__).parents[2] / "tasks"
READY = sorted(path.stem for path in TASKS.glob("*.yaml"))
PASSED_ON = "instructions"  # its wordings are the user's own texts, as they are
SIMPLIFIED = set("这们说对时为来会过还没么应从关话语问题经给种样发动进现实")

# Columns of the data sets on the hub, and their splits with labels where they are not train and validation.
COLUMNS = {
    "knkarthick/dialogsum": "id dialogue summary topic",
    "EdinburghNLP/xsum": "document summary id",
    "knkarthick/samsum": "id dialogue summary",
    "abisee/cnn_dailymail:3.0.0": "article highlights id",
    "nyu-mll/glue:sst2": "sentence label idx",
    "nyu-mll/glue:mnli": "premise hypothesis label idx",
    "nyu-mll/glue:qnli": "question sentence label idx",
    "nyu-mll/glue:rte": "sentence1 sentence2 label idx",
    "nyu-mll/glue:wnli": "sentence1 sentence2 label idx",
    "nyu-mll/glue:mrpc": "sentence1 sentence2 label idx",
    "nyu-mll/glue:qqp": "question1 question2 label idx",
    "nyu-mll/glue:stsb": "sentence1 sentence2 label idx",
    "stanfordnlp/imdb": "text label",
    "google-research-datasets/paws:labeled_final": "id sentence1 sentence2 label",
    "aps/super_glue:cb": "premise hypothesis idx label",
    "aps/super_glue:rte": "premise hypothesis idx label",
    "aps/super_glue:wsc.fixed": "text span1_index span2_index span1_text span2_text idx label",
    "aps/super_glue:boolq": "question passage idx label",
    "aps/super_glue:multirc": "paragraph question answer idx label",
    "aps/super_glue:wic": "word sentence1 sentence2 start1 start2 end1 end2 idx label",
    "aps/super_glue:record": "passage query entities entity_spans answers idx",
    "google/boolq": "question answer passage",
    "rajpurkar/squad": "id title context question answers",
    "mandarjoshi/trivia_qa:unfiltered.nocontext": (
        "question question_id question_source entity_pages search_results answer"
    ),
}
SPLITS = {
    **dict.fromkeys(
        [
            "knkarthick/dialogsum",
            "EdinburghNLP/xsum",
            "knkarthick/samsum",
            "abisee/cnn_dailymail:3.0.0",
            "google-research-datasets/paws:labeled_final",
        ],
        "train validation test",
    ),
    "stanfordnlp/imdb": "train test",
    "nyu-mll/glue:mnli": "train validation_matched validation_mismatched",
}

CHAT = "Mia: Are you at the lake?\nTom: No, it rains. I stay in.\nMia: Then come over for tea."
MARSH = "The marsh was drained in 1871. Ever since, farmers have grown cabbage and beets where herons used to nest."
OLD, NEW = "The mill was sold to a brewer.", "A brewer bought the mill."

# Made-up rows as the hub would give them, by task file, each with the answer that its default wording asks for.
ROWS = {
    "dialogsum": (
        {"id": "train_7", "dialogue": CHAT, "summary": "Mia asks Tom to tea.", "topic": "tea"},
        "Mia asks Tom to tea.",
    ),
    "xsum": ({"document": MARSH, "summary": "A marsh became fields.", "id": "30111222"}, "A marsh became fields."),
    "samsum": ({"id": "13800000", "dialogue": CHAT, "summary": "Mia asks Tom to tea."}, "Mia asks Tom to tea."),
    "cnn_dailymail": (
        {"article": MARSH, "highlights": "Marsh drained in 1871 .\nCabbage grows there now .", "id": "0c1d"},
        "Marsh drained in 1871 .\nCabbage grows there now .",
    ),
    "glue_sst2": ({"sentence": "a plot as stale as last week 's bread ", "label": 0, "idx": 3}, "negative"),
    "glue_mnli": ({"premise": OLD, "hypothesis": "The brewer was rich.", "label": 1, "idx": 0}, "maybe"),
    "glue_qnli": ({"question": " Who bought the mill?", "sentence": OLD, "label": 0, "idx": 9}, "yes"),
    "glue_rte": ({"sentence1": OLD, "sentence2": NEW, "label": 0, "idx": 4}, "yes"),
    "glue_wnli": ({"sentence1": "The cup fell on the plate and it broke.", "sentence2": "The plate broke.", "label": 1,
                   "idx": 1}, "yes"),
    "glue_mrpc": ({"sentence1": OLD, "sentence2": NEW, "label": 1, "idx": 2}, "yes"),
    "glue_qqp": ({"question1": "Why is tea green?", "question2": "How is tea made?", "label": 0, "idx": 5}, "no"),
    "glue_stsb": ({"sentence1": OLD, "sentence2": NEW, "label": 4.75, "idx": 8}, "4.8"),
    "imdb": ({"text": "It drags on.<br /><br />Yet I laughed, and cried.", "label": 1}, "positive"),
    "paws": ({"id": 1, "sentence1": "Ada taught Ben.", "sentence2": "Ben taught Ada.", "label": 0}, "no"),
    "superglue_cb": (
        {"premise": "A: Do you think it snows there? B: No.", "hypothesis": "it snows there", "idx": 7, "label": 1},
        "no",
    ),
    "superglue_rte": ({"premise": OLD, "hypothesis": "The mill burned down.", "idx": 3, "label": 1}, "no"),
    "superglue_wsc": (
        {"text": "Ada thanked Eve for all the help she had given. She smiled.", "span1_index": 2, "span2_index": 7,
         "span1_text": "Eve", "span2_text": "she", "idx": 0, "label": 1},
        "yes",
    ),
    "superglue_boolq": ({"question": "did the marsh become farm land", "passage": MARSH, "idx": 0, "label": 1}, "yes"),
    "superglue_multirc": (
        {"paragraph": MARSH, "question": "What grows there?", "answer": "Herons",
         "idx": {"paragraph": 0, "question": 1, "answer": 2}, "label": 0},
        "no",
    ),
    "superglue_wic": (
        {"word": "bank", "sentence1": "They sat on the bank and fished.", "sentence2": "The bank lent them money.",
         "start1": 16, "start2": 4, "end1": 20, "end2": 8, "idx": 5, "label": 0},
        "no",
    ),
    "superglue_record": (
        {"passage": "Eva Lind sold the mill to Karl Moor.\nMoor brews beer.\n@highlight\nThe mill was empty for years",
         "query": "@placeholder wants to open in May. ", "entities": ["Moor", "Eva Lind", "Karl Moor", "Moor"],
         "entity_spans": {"text": ["Eva Lind", "Karl Moor", "Moor"], "start": [0, 26, 37], "end": [8, 35, 41]},
         "answers": ["Karl Moor", "Moor"], "idx": {"passage": 2, "query": 4}},
        "Karl Moor",
    ),
    "boolq": ({"question": "is the marsh still wet", "answer": False, "passage": MARSH}, "no"),
    "squad": (
        {"id": "56be", "title": "Marsh", "context": MARSH, "question": " When was the marsh drained?",
         "answers": {"text": ["1871", "in 1871"], "answer_start": [25, 22]}},
        "1871",
    ),
    "trivia_qa": (
        {"question": "Which bird stands on one leg in reeds?", "question_id": "tc_1", "question_source": "", "answer": {
            "aliases": ["Heron", "Herons"], "normalized_aliases": ["heron", "herons"], "value": "Heron",
            "normalized_value": "heron", "type": "WikipediaEntity", "matched_wiki_entity_name": "",
            "normalized_matched_wiki_entity_name": ""},
         "entity_pages": {"doc_source": [], "filename": [], "title": [], "wiki_context": []},
         "search_results": {"description": [], "filename": [], "rank": [], "title": [], "url": [],
                            "search_context": []}},
        "Heron",
    ),
}  # fmt: skip


def library():
    return [pytest.param(family(name), id=name) for name in families()]


def bare(prompt):
    """Give a wording without what may differ by chance: letter case, spacing, names of fields."""
    return " ".join(re.sub(r"\{\{.*?\}\}", "{{}}", prompt.lower()).split())


def made_up(names):
    row = {name: f"made-up {name}" for name in names}
    special = {"options": ["made-up answer", "another"], "history": [["a question", "its answer"]]}
    return Row("r", {name: special.get(name, text) for name, text in row.items()})


def tidy(text):
    return text == text.strip() and "\n\n\n" not in text and not any(line != line.rstrip() for line in text.split("\n"))


@pytest.mark.parametrize("wordings", library())
def test_a_family_has_many_wordings_in_two_languages(wordings):
    direct = Counter(template.language for template in wordings.templates if template.kind == "direct")
    assert direct["en"] >= (1 if wordings.cluster == PASSED_ON else 6)
    assert direct["zh"] >= (1 if wordings.cluster == PASSED_ON else 3)


@pytest.mark.parametrize("wordings", library())
def test_the_wordings_of_a_family_have_names_of_their_own_and_a_direct_one_leads(wordings):
    names = [template.name for template in wordings.templates]
    assert len(set(names)) == len(names)
    for language in wordings.languages():
        assert next(one for one in wordings.templates if one.language == language).kind == "direct"


@pytest.mark.parametrize("name", families())
def test_a_family_is_named_as_its_file(name):
    assert family(name).cluster == name


@pytest.mark.parametrize("wordings", library())
def test_a_wording_uses_every_field_of_its_family_and_no_other(wordings):
    for template in wordings.templates:
        # What is asked for backwards has no choices.
        required = set(wordings.fields) - ({"options"} if template.kind == "inverted" else set())
        assert template.fields() <= {*wordings.fields, *wordings.optional}, template.name
        assert required <= template.fields(), template.name


def test_no_two_wordings_of_the_library_are_the_same():
    own = [name for name in families() if name != PASSED_ON]
    told = Counter(bare(template.prompt) for name in own for template in family(name).templates)
    assert [text for text, times in told.items() if times > 1] == []


@pytest.mark.parametrize("wordings", library())
def test_choices_are_listed_only_where_there_are_some(wordings):
    for template in wordings.templates:
        assert template.choices or not template.lists_choices(), template.name
        assert not (template.kind == "inverted" and template.choices), template.name


@pytest.mark.parametrize("wordings", library())
def test_chinese_wordings_are_traditional_with_punctuation_of_full_width(wordings):
    for template in wordings.templates:
        if template.language == "zh":
            said = re.sub(r"\{\{.*?\}\}", "", template.name + template.prompt)
            assert not SIMPLIFIED & set(said), template.name
            assert not set(",:;?!") & set(said), template.name


@pytest.mark.parametrize("options", [True, False])
@pytest.mark.parametrize("wordings", library())
def test_every_wording_renders_tidily_with_and_without_its_options_listed(wordings, options):
    for names in ({*wordings.fields}, {*wordings.fields, *wordings.optional}):
        row = made_up(sorted(names))
        for template in wordings.templates:
            if template.kind == "chain_of_thought" and "rationale" not in row.fields:
                continue
            prompt = template.render(row, options=options)
            listed = options and "options" in row.fields and template.lists_choices()
            assert tidy(prompt.question), template.name
            assert ("- another" in prompt.question) == listed, template.name


@pytest.mark.parametrize("name", READY)
def test_a_ready_task_parses_and_names_metrics_that_exist(name):
    task = load_task(str(TASKS / f"{name}.yaml"))
    assert [metric(one, task.language).name for one in task.metrics] == list(task.metrics)
    assert task.source.train is not None
    assert task.source.validation is not None
    assert task.source.test is not None


def hub_task(name):
    """Give a ready task, its three sources and the columns of its data set on the hub."""
    task = load_task(str(TASKS / f"{name}.yaml"))
    sources = [task.source.train, task.source.validation, task.source.test]
    places = {f"{source.hub}:{source.name}" if source.name else source.hub for source in sources}
    assert len(places) == 1
    place = places.pop()
    return task, sources, place, set(COLUMNS[place].split())


@pytest.mark.parametrize("name", ROWS)
def test_a_ready_task_has_every_field_from_a_column_or_of_its_own(name):
    task, sources, place, columns = hub_task(name)
    used = frozenset(chain.from_iterable(template.fields() for template in task.templates))
    optional = set(family(task.cluster).optional) if task.cluster in families() else set()
    assert used - optional <= columns | set(task.fields)
    assert {column for source in sources for column in (source.id, source.part_by) if column} <= columns
    assert {source.split for source in sources} <= set(SPLITS.get(place, "train validation").split())


@pytest.mark.parametrize("name", ROWS)
def test_a_row_from_the_hub_renders_in_every_wording_of_its_task(name):
    task, _, _, columns = hub_task(name)
    raw, answer = ROWS[name]
    assert set(raw) == columns
    row = derived(Row("r", raw), task.fields)
    assert task.templates[0].render(row, task.references).answer == answer
    for template in task.templates:
        assert tidy(template.render(row, task.references).question), template.name


def test_a_hidden_label_is_refused():
    for name in ("glue_rte", "superglue_cb", "glue_sst2", "glue_stsb", "superglue_wic", "superglue_record"):
        with pytest.raises(DataError, match="field 'answer' cannot be made"):
            derived(Row("r", {**ROWS[name][0], "label": -1, "answers": []}), hub_task(name)[0].fields)


def test_references_are_all_answers_and_a_pronoun_is_marked_where_it_stands():
    said = {}
    for name in ("squad", "trivia_qa", "superglue_wsc"):
        task, raw = hub_task(name)[0], ROWS[name][0]
        said[name] = task.templates[0].render(derived(Row("r", raw), task.fields), task.references)
    assert said["squad"].references == ("1871", "in 1871")
    assert said["trivia_qa"].references == ("Heron", "Herons")
    assert "all the help *she* had given. She smiled." in said["superglue_wsc"].question
    assert 'Does *she* stand for "Eve"?' in said["superglue_wsc"].question


def test_a_likeness_is_written_with_one_decimal_and_marked_against_the_mean_itself():
    task, raw = hub_task("glue_stsb")[0], ROWS["glue_stsb"][0]
    for label, answer, reference in ((3.5999999, "3.6", "3.600"), (2.667, "2.7", "2.667"), (0.0, "0.0", "0.000")):
        said = task.templates[0].render(derived(Row("r", {**raw, "label": label}), task.fields), task.references)
        assert (said.answer, said.references) == (answer, (reference,))


def test_the_names_of_a_text_are_choices_once_each_and_every_right_one_is_a_reference():
    task, raw = hub_task("superglue_record")[0], ROWS["superglue_record"][0]
    row = derived(Row("r", raw), task.fields)
    said = task.templates[0].render(row, task.references)
    assert said.choices == ("Moor", "Eva Lind", "Karl Moor")
    assert said.references == ("Karl Moor", "Moor")
    assert "Moor brews beer.\n- The mill was empty for years\n" in said.question
    assert holds(row, task.where)
    assert not holds(derived(Row("r", {**raw, "entities": ["Moor"]}), task.fields), task.where)


@needs_shared("glue")
@pytest.mark.parametrize("name", ["rte-local", "wnli-local"])
def test_a_local_task_renders_real_rows_and_its_parts_share_no_text(name):
    task = load_task(str(TASKS / f"{name}.yaml"))
    for template in task.templates:
        assert all(tidy(prompt.question) for prompt in task.prompts("test", template=template.name, limit=20))
    assert {prompt.answer for prompt in task.prompts("test", limit=20)} == {"yes", "no"}
    train, validation = ({row.fields["premise"] for row in task.rows(split)} for split in ("train", "validation"))
    assert validation
    assert not train & validation
