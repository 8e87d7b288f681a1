"""Real-looking answers, each with what a careful reader would say was answered; None where a reader could not say."""

import re

import pytest

from tests.conftest import SHARED, needs_shared
from tunesmith.errors import ConfigError
from tunesmith.metrics.extract import EXTRACTORS, extract

OUTPUTS = {
    "answer_is": [
        ("Let's think step by step. (1) is false. So the answer is (B).", "(B)"),
        ("The answer is 4. Wait, I forgot one. So the answer is 5.", "5"),
        ("So the answer is ) ) ].", ") ) ]"),
        ("So the answer is not plausible.\nQ: next question", "not plausible"),
        ("The answer is: True", "True"),
        ("所以答案是臺北。", "臺北"),
        ("The Answer is 3.14.", "3.14"),
        ("I cannot help with that.", None),
        ("The answer is", None),
        ("", None),
    ],
    "letter": [
        ("B", "B"),
        ("b", "B"),
        (" (C)", "C"),
        ("B.", "B"),
        ("**B**", "B"),
        ("**B.** Paris", "B"),
        ("(D) all of the above", "D"),
        ("D) all of the above", "D"),
        ("C: mitochondria", "C"),
        ("Answer: B", "B"),
        ("ANSWER: C", "C"),
        ("Answer: **(A)**", "A"),
        ("Answer:B\n\nExplanation: A is wrong because plants do not eat.", "B"),
        ("The answer is B.", "B"),
        ("The answer is (b).", "B"),
        ("The correct answer is option C.", "C"),
        ("The correct option is D, since mass is conserved.", "D"),
        ("The answer to this question is A because water boils.", "A"),
        ("Thus the final answer is $\\boxed{B}$.", "B"),
        ("\\boxed{\\text{(C)}}", "C"),
        ("First I thought the answer is A. But checking again, the answer is D.", "D"),
        ("A dog is an animal.", None),
        ("A", "A"),
        ("A.", "A"),
        ("A\nBecause of gravity.", "A"),
        ("A is the correct answer.", "A"),
        ("The answer is a dog.", None),
        ("The answer is A dog.", None),
        ("The answer is A or B.", None),
        ("Answer: A and C", None),
        ("(A) and (C)", None),
        ("A, B and C are all true.", None),
        ("The answer is not B.", None),
        ("A. cat\nB. dog\nC. fish\nD. bird", None),
        ("A. cat\nB. dog\nC. fish\nD. bird\nAnswer: C", "C"),
        ("Options: (A) cat (B) dog. The animal that barks is (B).", None),
        ("The animal that barks is (B), of course.", "B"),
        ("I would go with C.", "C"),
        ("The answer is clearly C.", "C"),
        ("The answer is 'A'.", "A"),
        ("**Answer:** B", "B"),
        ("Looking at all of them, I believe option C is the best choice.", "C"),
        ("D is wrong, so the answer must be B", "B"),
        ("B is a vitamin.", None),
        ("Bees make honey.", None),
        ("I don't know.", None),
        ("I'm sorry, but I can't answer that.", None),
        ("E", None),
        ("答案是B。", "B"),
        ("答案:(B)", "B"),
        ("答案:C", "C"),
        ("正確答案為(D),因為水會沸騰。", "D"),
        ("应选A。", "A"),
        ("我選 C", "C"),
        ("我不知道。", None),
        ("", None),
    ],
    "number": [
        ("Natalia sold 48/2 = 24 clips in May.\nShe sold 48+24 = 72 altogether.\n#### 72", "72"),
        ("#### 1,200 apples\nQuestion: what of 5 more?", "1200"),
        ("The total is $1,234.50.", "1234.5"),
        ("It costs $18.00", "18"),
        ("So she pays -$5.", "-5"),
        ("The change is −3 degrees.", "-3"),
        ("That is 50%.", "50%"),
        ("About 12.5 % of them.", "12.5%"),
        ("He ate 3/4 of it.", "3/4"),
        ("\\boxed{\\frac{3}{4}}", "3/4"),
        ("She ran 42km.", "42"),
        ("There are 3-5 of them", "5"),
        ("The area is 10 m².", "10"),
        ("It grew by 1e-5.", "1e-5"),
        ("共有123個蘋果。", "123"),
        ("Twelve apples.", None),
        ("GPT-4 says so", None),
        ("I cannot answer.", None),
        ("100", "100"),
        ("0.50", "0.5"),
        ("0", "0"),
    ],
    "yes_no": [
        ("Yes", "yes"),
        ("no.", "no"),
        ("**Yes**, it can.", "yes"),
        ("No, it cannot. Yes men say otherwise.", "no"),
        ("No it is not.", "no"),
        ("So the answer is yes.", "yes"),
        ("Yes and no. So the answer is no.", "no"),
        ("It could be yes, or no.", None),
        ("I have no idea.", None),
        ("It is not known.", None),
        ("Nobody knows.", None),
        ("After some thought: yes.", "yes"),
        ("不是。", "no"),
        ("是的,他會。", "yes"),
        ("答案是否。", "no"),
        ("", None),
    ],
    "first_line": [("\n\n Paris \nThe capital", "Paris"), ("Paris", "Paris"), (" \n ", None)],
    "boxed": [
        ("so \\boxed{42}.", "42"),
        ("\\boxed{1} then \\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("\\boxed{12\\text{ cm}}", "12 cm"),
        ("\\fbox{7}", None),
        ("\\boxed{42", None),
        ("\\boxed{1} and \\boxed{2", "1"),
        ("\\boxed{}", None),
        ("42", None),
    ],
}  # fmt: skip
CHOSEN = [
    ("The sentiment is positive.", ("positive", "negative"), "positive"),
    ("POSITIVE", ("positive", "negative"), "positive"),
    ("Positive or negative? Hard to say.", ("positive", "negative"), None),
    ("I am not sure.", ("sure", "not sure"), "not sure"),
    ("I am sure, not unsure", ("sure", "not sure"), "sure"),
    ("It is neutral", ("positive", "negative"), None),
    ("A positively odd film", ("positive", "negative"), None),
    ("We know it: entailment.", ("no", "entailment"), "entailment"),
    ("The language is C++.", ("C", "C++"), "C++"),
    ("這部電影是正面的。", ("正面", "負面"), "正面"),
    ("正面和負面都有", ("正面", "負面"), None),
    ("答案是yes吧", ("yes", "no"), "yes"),
    ("", ("yes", "no"), None),
    ("yes", (), None),
]


@pytest.mark.parametrize(
    ("name", "text", "expected"), [(name, *pair) for name, pairs in OUTPUTS.items() for pair in pairs]
)
def test_a_text_holds_the_answer_that_a_reader_finds(name, text, expected):
    assert extract(name, text) == expected


@pytest.mark.parametrize(("text", "choices", "expected"), CHOSEN)
def test_exactly_one_choice_must_occur(text, choices, expected):
    assert extract("choice", text, choices) == expected


def test_the_letters_are_those_of_the_choices():
    assert extract("letter", "The answer is E.", ["A", "B", "C", "D", "E"]) == "E"
    assert extract("letter", "The answer is E.", ["cat", "dog", "fish", "bird", "bee"]) == "E"
    assert extract("letter", "The answer is D.", ["cat", "dog", "fish"]) is None


def test_full_width_forms_are_read():
    for text in ("（Ｂ）", "Ｂ", "答案：Ｂ", "答案是（Ｂ）。", "选Ｂ。"):
        assert extract("letter", text) == "B", text
    assert extract("number", "共１，２３４元。") == "1234"
    assert extract("number", "約５０％") == "50%"


@pytest.mark.parametrize("name", EXTRACTORS)
@pytest.mark.parametrize(
    "text", ["", " ", "\n", "\0", "((((", "\\boxed{{{", "🙂" * 9, "A" * 5000, "1," * 3000, "(A" * 2000]
)
def test_no_text_breaks_an_extractor_or_gives_an_empty_answer(name, text):
    assert extract(name, text, ("yes", "")) != ""


def test_another_name_is_answered_with_the_nearest():
    with pytest.raises(ConfigError) as wrong:
        extract("leter", "A")
    assert wrong.value.fix == "did you mean 'letter'?"


@needs_shared("bbh")
def test_the_worked_solutions_of_bbh_are_all_parsed_and_the_bracketed_ones_by_both_extractors():
    seen = 0
    for path in sorted((SHARED / "bbh" / "cot-prompts").glob("*.txt")):
        for block in re.split(r"\nQ: ", path.read_text(encoding="utf-8"))[1:]:
            solution = block.partition("\nA: ")[2]
            found = extract("answer_is", solution)
            assert found, (path.name, solution)
            seen += 1
            if re.fullmatch(r"\([A-R]\)", found):
                assert extract("letter", solution, [chr(65 + i) for i in range(18)]) == found[1], (path.name, solution)
    assert seen >= 27 * 3
