import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import write_rows
from tunesmith.data.perturb import PERTURBATIONS, contractions, dialect, gender, names, perturbation, spaces, typos
from tunesmith.data.rows import Source
from tunesmith.data.task import Sources, Task, load_task
from tunesmith.data.template import Template
from tunesmith.data.variants import variants
from tunesmith.errors import ConfigError

LONG = "She said that people would believe something because the weather tomorrow should be wonderful. " * 8


@pytest.mark.parametrize("how", PERTURBATIONS.values(), ids=PERTURBATIONS)
def test_a_perturbation_is_a_function_of_the_seed_and_the_id(how):
    text = "Emily and Greg told their father that they are waiting because it is late. " * 5
    first = how.change(text, 1, "a")
    how.change(LONG, 3, "another")
    assert how.change(text, 1, "a") == first != text


def test_other_ids_and_other_seeds_draw_other_typos():
    drawn = {typos(LONG, seed, name) for seed in (0, 1) for name in "ab"}
    assert len(drawn) == 4


def test_typos_touch_about_one_lower_case_word_in_ten_and_no_name_or_number():
    text = "Anna paid 1250 euros to NASA and Berlin. " * 3 + LONG
    before, after = text.split(), typos(text, 0, "a").split()
    changed = [one for one, other in zip(before, after, strict=True) if one != other]
    able = [word for word in before if word.strip(".").isalpha() and word.islower() and len(word.strip(".")) >= 4]
    assert 0.03 < len(changed) / len(able) < 0.2
    assert all(word in able for word in changed)


def test_spaces_grow_between_words_and_lines_stay():
    text = "  a bc d\n\n  e f  g"
    made = spaces(text, 0, "x")
    assert made.split("\n") != text.split("\n")
    assert [line.split() for line in made.split("\n")] == [line.split() for line in text.split("\n")]
    assert made.startswith("  a") and "\n\n  e" in made


@pytest.mark.parametrize(("name", "said"), [("lowercase", "don't go, émile"), ("uppercase", "DON'T GO, ÉMILE"),
                                            ("titlecase", "Don't Go, Émile")])  # fmt: skip
def test_cases_are_idempotent(name, said):
    how = PERTURBATIONS[name].change
    assert how("Don't go, émile" if name != "titlecase" else "don't go, émile", 0, "x") == said
    assert how(said, 0, "x") == said


@pytest.mark.parametrize(("text", "other"), [
    ("I do not know", "I don't know"), ("We're sure we cannot", "We are sure we can't"), ("I am here", "I'm here"),
    ("I've seen it, DON'T", "I have seen it, DO NOT"), ("they will come. Let's", "they'll come. Let us"),
])  # fmt: skip
def test_contractions_are_exchanged_and_twice_gives_the_text_back(text, other):
    assert contractions(text, 0, "x") == other
    assert contractions(other, 0, "x") == text


@pytest.mark.parametrize("text", ["Yes, I am.", "Don't you see?", "I have a dog", "It's late", "He'd go", "island"])
def test_what_english_does_not_contract_stays(text):
    assert contractions(text, 0, "x") == text


def test_a_curly_apostrophe_is_an_apostrophe():
    assert contractions("you’re", 0, "x") == "you are"
    assert dialect("isn’t", 0, "x") == "ain't"


@pytest.mark.parametrize(("text", "said"), [
    ("friend friend,friend", "homie homie,homie"), ("She is working", "She workin'"), ("BECAUSE", "CAUSE"),
    ("I don't want anything", "I don't want nothin'"), ("Isn't he?", "Ain't he?"),
    ("befriend theirs", "befriend theirs"),
])  # fmt: skip
def test_dialect_meets_words_at_the_edge_and_side_by_side_but_no_parts_of_words(text, said):
    assert dialect(text, 0, "x") == said


@pytest.mark.parametrize(("text", "other"), [
    ("She told her brother that her mother saw him.", "He told his sister that his father saw her."),
    ("It is hers. Call her.", "It is his. Call him."), ("HE'S Mr. Smith", "SHE'S Ms. Smith"),
    ("man,woman man", "woman,man woman"), ("ask her to wait for her", "ask him to wait for him"),
    ("Her new car is here", "His new car is here"), ("The book is his, not hers", "The book is hers, not his"),
])  # fmt: skip
def test_gender_is_exchanged_and_twice_gives_the_text_back(text, other):
    assert gender(text, 0, "x") == other
    assert gender(other, 0, "x") == text


@pytest.mark.parametrize("text", ["He let her work", "She gave her books", "his and her children", "met her last week"])
def test_a_pronoun_of_two_readings_leaves_the_text_as_it_is(text):
    assert gender(text, 0, "x") == text


def test_names_are_exchanged_one_to_one_and_twice_gives_the_text_back():
    text = "Emily met EMILY's friends Greg, Claire and Jamal; Emilya and greg did not."
    made = names(text, 0, "x")
    assert names(made, 0, "x") == text
    assert names(text, 0, "y") != made
    women, men = [made.split()[0], made.split()[5].strip(",")], made.split()[4].strip(",")
    assert len({*women, men, "Emily", "Claire", "Greg"}) == 6
    assert made.split()[2] == f"{women[0].upper()}'s"
    assert made.endswith("Emilya and greg did not.")


@given(st.text("Hher is'mandwoGgEly,.\n", max_size=60))
def test_separators_survive(text):
    for how in (gender, names):
        assert [c for c in how(text, 0, "x") if not c.isalpha()] == [c for c in text if not c.isalpha()]


def test_a_wrong_name_is_answered_with_the_nearest_right_one():
    with pytest.raises(ConfigError, match="did you mean 'typos'"):
        perturbation("typo")


def asked(tmp_path, row, prompt, answer, how, **more):
    source = Sources(test=Source(file=write_rows(tmp_path / "rows.jsonl", [{"id": "a", **row}])))
    references = more.pop("references", ())
    task = Task(name="t", source=source, templates=(Template(name="one", prompt=prompt, answer=answer, **more),),
                references=references)  # fmt: skip
    return variants(task, task.rows("test"), task.prompts("test"), PERTURBATIONS[how], 0)[0]


def test_only_the_content_of_a_question_changes_not_its_wording_nor_its_answer(tmp_path):
    row = {"text": "Emily Waits", "place": "Rome", "label": "Rome"}
    made = asked(tmp_path, row, "Name The Town: {{ text }} in {{ place }}", "{{ place }}", "lowercase")
    assert made.question == "Name The Town: emily waits in Rome"
    assert (made.answer, made.references) == ("Rome", ("Rome",))


def test_choices_stay_as_fields_and_inside_texts(tmp_path):
    row = {"text": "Pick One: (A) Red (B) Blue", "first": "(A)", "label": "(B)"}
    made = asked(tmp_path, row, "{{ text }} {{ first }}", "{{ label }}", "lowercase", choices=("(A)", "(B)"))
    assert made.question == "pick one: (A) red (B) blue (A)"


def test_the_right_answer_names_whom_the_question_names(tmp_path):
    row = {"text": "Emily: I wait for my husband", "short": "Emily waits for him.", "other": "Emily is waiting."}
    for how in ("names", "gender"):
        made = asked(tmp_path, row, "{{ text }}", "{{ short }}", how, references=("short", "other"))
        who = made.question.split(":")[0]
        assert all(one.startswith(who) for one in made.references)
    assert made.references == ("Emily waits for her.", "Emily is waiting.")
    typed = asked(tmp_path, row, "{{ text }}", "{{ short }}", "lowercase", references=("short", "other"))
    assert typed.references == ("Emily waits for him.", "Emily is waiting.")


def test_a_row_that_is_not_clear_in_one_place_stays_as_a_whole(tmp_path):
    row = {"text": "He let her work", "short": "He agrees."}
    assert asked(tmp_path, row, "{{ text }}", "{{ short }}", "gender") is None


def test_shots_and_ids_stay_and_a_limit_changes_nothing():
    task = load_task("demo")
    rows, prompts = task.rows("test", 6), task.prompts("test", shots=1, limit=6)
    all_of_them = variants(task, rows, prompts, PERTURBATIONS["typos"], 0)
    few = variants(task, rows[2:4], prompts[2:4], PERTURBATIONS["typos"], 0)
    assert few == all_of_them[2:4]
    assert all(
        made.shots == prompt.shots and made.id == prompt.id for made, prompt in zip(all_of_them, prompts, strict=True)
    )
