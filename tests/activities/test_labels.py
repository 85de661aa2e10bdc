"""Which labels are one and which cannot be used, and that every function that takes a list of labels says so."""

import unicodedata
from dataclasses import replace

import pytest
from PIL import Image

import favor_lab
from favor_lab import Example, FewShot, GRPOSettings, Question, build_prompt, load_activities
from favor_lab.activities.checks import check_folder
from favor_lab.activities.fewshot import label_overlap, restrict
from favor_lab.activities.hf_datasets import from_datasets, to_datasets
from favor_lab.activities.labels import INVISIBLE, check_labels, is_blank, label_faults, normalise_label, refuse_string

ALIKE = ("CJK UNIFIED", "HANGUL SYLLABLE", "TANGUT", "CUNEIFORM", "EGYPTIAN")  # tens of thousands without case
SIGNS = [sign for sign in map(chr, range(0x110000)) if not unicodedata.name(sign, "").startswith(ALIKE)]
SIGNS = [sign for sign in SIGNS if unicodedata.category(sign) not in ("Cn", "Co", "Cs")]


def test_normalising_again_changes_nothing():
    for place in ("{}", "a{}", "{}a", "a{}b", "a {}5"):
        changed = [sign for sign in SIGNS if normalise_label(text := normalise_label(place.format(sign))) != text]
        assert changed == [], place


def test_case_is_forgiven_in_every_script():
    for sign in SIGNS:
        forms = {normalise_label(f"a{form}a") for form in (sign, sign.upper(), sign.lower(), sign.title())}
        assert len(forms) == 1 or sign == "ı", sign  # its capital is I, which is that of i as well


def test_composed_and_decomposed_letters_are_the_same():
    for sign in SIGNS:
        apart = unicodedata.normalize("NFD", sign)
        assert normalise_label(f"a{apart}a") == normalise_label(f"a{sign}a"), sign


def test_marks_of_letters_stay():
    """Accents, and the vowel signs of Indian scripts: whether a mark stands on a letter makes another label."""
    for sign in SIGNS:
        if unicodedata.category(sign)[0] == "M" and not INVISIBLE.match(sign):
            assert normalise_label(f"क{sign}न") != normalise_label("कन"), ascii(sign)


@pytest.mark.parametrize(
    "one, other",
    [
        ("C", "C++"), ("C", "C#"), ("C!", "C"), ("why", "why?"), ("5", "-5"), ("5", "+5"), ("at 5", "at -5"), 
        (".5", "5"), ("A", "A-"), ("A-", "A+"), ("A--", "A-"), ("x2", "x²"), ("x²", "x³"), ("11/2", "1½"), ("ı", "i"),
        ("cafe", "café"), ("की", "कि"), ("ओ", "औ"), ("playing guitar", "playing guitars"), ("a,b", "ab"), ("ab", "a b"),
        ("rock & roll", "rock roll"), ("(sit)", "sit"), ("'sit'", "sit"), ("ビル", "ビール"), ("か", "が"), ("۵", "5"),
    ],
)  # fmt: skip
def test_what_differs_stays_apart(one, other):
    assert normalise_label(one) != normalise_label(other)
    check_labels([one, other])


@pytest.mark.parametrize(
    "one, other",
    [
        ("-5", "−5"), ("t-shirt", "t shirt"), ("t-shirt", "t—shirt"), ("riding - a bike", "riding a bike"),
        ("- reading", "reading"), ("reading", "Reading"), ("ｓｉｔ！", "sit"), ("reading 。", "reading"),
        ("“sit”", '"sit"'), ("read\u200bing\u2069", "reading"), ("a\u2800b", "a b"), ("sit\u3164", "sit"),
        ("İ", "i"), ("ŉ", "'n"), ("ﬃ", "ffi"), ("ΐ", "Ϊ\u0301"), ("ᾳ", "αΙ"), ("و\u0640ل", "ول"),
        ("don´t", "don't"), ("½", "1/2"), ("H₂O", "h2o"), ("sit.", "sit"), ("ẞ\u0301", "ss\u0301"),
    ],
)  # fmt: skip
def test_what_does_not_matter_is_one_label_and_refused_with_both_names(one, other):
    assert normalise_label(one) == normalise_label(other)
    with pytest.raises(ValueError) as error:
        check_labels(["something else", one, other])
    assert repr(one) in str(error.value) and repr(other) in str(error.value) and "one label" in str(error.value)


def test_nothing_is_seen_where_nothing_is_drawn():
    assert all(
        map(is_blank, ("", " \n\u3000", "\u2800", "\0\x1b", "\ue000", "\ud800", "\u0301", "\U0001d159", "\u061c"))
    )
    assert not any(map(is_blank, (".", "\u200b.", "क", "👍", "\u0301e", "²", "?")))


def test_names_that_look_the_same_are_shown_apart():
    faults = label_faults({"café": "café", "cafe\u0301": "cafe\u0301", "ﬁlm": "ﬁlm", "film": "film"})
    assert "'cafe\\u0301' and 'caf\\xe9'" in faults["cafe\u0301"] and "'film' and '\\ufb01lm'" in faults["film"]
    assert "they are" not in label_faults({"a": "a", "A": "A"})["A"]


# every entry that takes labels: what it does with a list of them
def few(labels):
    image = Image.new("RGB", (56, 56))
    return FewShot([Example(image, "reading", "a.png")], [], [], labels)


ENTRIES = {
    "build_prompt": lambda policy, labels: build_prompt(labels),
    "Question": lambda policy, labels: Question(labels),
    "open question": lambda policy, labels: Question.of(labels, open_vocabulary=True),
    "encode_prompts": lambda policy, labels: favor_lab.encode_prompts(policy, few(["reading"]).train, labels),
    "evaluate": lambda policy, labels: favor_lab.evaluate(policy, few(["reading"]).train, labels),
    "answer": lambda policy, labels: favor_lab.answer(policy, "no such file.png", labels),
    "policy.answer": lambda policy, labels: policy.answer(few(["reading"]).train, labels),
    "explain": lambda policy, labels: favor_lab.explain(policy, few(["reading"]).train[0], labels),
    "image_reliance": lambda policy, labels: favor_lab.image_reliance(policy, few(["reading"]).train, labels),
    "trl_dataset": lambda policy, labels: favor_lab.trl_dataset(few(["reading"]).train, labels),
    "to_datasets": lambda policy, labels: to_datasets(few(["reading"]).train, labels),
    "FewShot": lambda policy, labels: few(labels),
    "train": lambda policy, labels: next(favor_lab.train(policy, few(labels), GRPOSettings(steps=1))),
    "sft": lambda policy, labels: next(favor_lab.sft(policy, few(labels))),
    "a set of one's own": lambda policy, labels: replace(load_activities("cartoon"), labels=labels),
}  # fmt: skip
WRONG = {
    "twins": (["reading", "sit.", "Sit"], "'Sit' .*'sit.'"),
    "a digit's sign": (["reading", "5 °C", "5 °c"], "'5 °c' .*'5 °C'"),
    "blank": (["reading", "\u3164"], "label 1"),
    "a full stop": (["reading", "."], "label 1 is '.'"),
    "a bracket": (["reading", "age <30"], "age <30"),
    "lines": (["reading", "a\nb"], "one line"),
    "too long": (["reading", "a" * 1001], "1000 characters"),
    "numbers": ([3, 1], "label.*name, not 3.*int2str"),
    "a string": ("reading", "non-empty list"),
}


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("wrong", WRONG)
def test_every_entry_refuses_labels_that_cannot_be_used(entry, wrong, tiny_policy):
    if entry in ("trl_dataset", "to_datasets"):
        pytest.importorskip("datasets")
    labels, message = WRONG[wrong]
    with pytest.raises(ValueError, match=message):
        ENTRIES[entry](tiny_policy, labels)


def folder(root, names):
    for number, name in enumerate(names):
        (root / name).mkdir(parents=True)
        Image.effect_noise((60, 50), 40 + number).convert("RGB").save(root / name / "a.png")
    return root


@pytest.mark.parametrize(
    "names", [["sit", "Sit."], ["A", "A\u200b"], ["ﬁlm", "film"], ["骑车", "骑车。"], ["age <30", "age 30"]]
)
def test_folders_are_refused_by_the_loader_and_named_by_the_check(names, tmp_path):
    folder(tmp_path, names)
    with pytest.raises(ValueError) as error:
        load_activities("folder", tmp_path)
    assert str(tmp_path) in str(error.value) and any(repr(name) in str(error.value) for name in names)
    assert [fault.kind for fault in check_folder("folder", tmp_path).fatal] == ["label"]


@pytest.mark.parametrize("names", [["A", "A-", "A+"], ["5", "-5"], ["C", "C++"], ["cafe", "café"], ["कि", "की"]])
def test_folders_that_differ_are_labels(names, tmp_path):
    assert set(load_activities("folder", folder(tmp_path, names)).labels) == set(names)


def test_columns_with_names_that_look_the_same_are_shown_apart():
    datasets = pytest.importorskip("datasets")
    cell = {"bytes": None, "path": "a.png"}
    table = datasets.Dataset.from_dict({"image": [cell, cell], "label": ["café", "cafe\u0301"]})
    with pytest.raises(ValueError, match=r"they are .caf\\xe9. and .cafe\\u0301"):
        from_datasets(table)


def test_a_gold_label_spelt_otherwise_than_the_list_is_shown_apart(tiny_policy):
    example = replace(few(["reading"]).train[0], label="cafe\u0301")
    with pytest.raises(ValueError, match=r"a.png .*cafe\\u0301' is not 'caf\\xe9"):
        favor_lab.evaluate(tiny_policy, [example], ["café", "bar"])


def test_labels_of_two_sets_are_matched_as_they_are_compared():
    assert label_overlap(["straße", "-5"], ["STRASSE。", "5"]) == {"straße": "STRASSE。"}


@pytest.mark.parametrize("what", ["labels", "texts"])
def test_a_string_is_no_list(what):
    with pytest.raises(ValueError, match=rf"{what} must be a list, not the string 'ab': write \['ab'\]"):
        refuse_string(what, "ab")
    refuse_string(what, ["ab"])


def test_functions_of_sets_refuse_a_string(tmp_path):
    with pytest.raises(ValueError, match="labels must be a list"):
        restrict(load_activities("cartoon"), "reading")
    for ask in (load_activities, check_folder):
        with pytest.raises(ValueError, match="exclude must be a list"):
            ask("folder", folder(tmp_path / ask.__name__, ["a", "b"]), exclude="a/a.png")


def test_a_fraction_after_a_number_is_not_read_as_part_of_it():
    fractions = [*map(chr, range(0xBC, 0xBF)), *map(chr, range(0x2150, 0x215F))]
    for sign in fractions:
        assert normalise_label(f"1{sign}") == normalise_label(f"1 {unicodedata.normalize('NFKC', sign)}"), sign
    assert [normalise_label(f"a{chr(code)}") for code in (0xBB, 0xBF, 0x215F)] == ["a»", "a¿", "a1/"]


@pytest.mark.parametrize(
    ("label", "normal"),
    [
        ("-reading", "reading"), ("- reading", "reading"), ("sit--stand", "sit stand"), ("a-- b", "a-- b"),
        ("--5", "--5"), ("-.5", "-.5"), ("FAX", "fax"), ("XX", "xx"), ("reading\uff01\n", "reading"),
        ("\treading.\u3000\n", "reading"),
    ],
)  # fmt: skip
def test_hyphens_and_ends_of_labels_by_hand(label, normal):
    assert normalise_label(label) == normal


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (3, r"a label must be a name, not 3: features\['label'\]\.int2str\(number\) of a ClassLabel column gives it"),
        (None, "a label must be a name, not None"),
    ],
)
def test_the_message_about_what_is_no_name(label, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        normalise_label(label)


def test_faults_of_labels_by_hand():
    tags = "contains '<' or '>', which are the signs of tags in the prompt; rename it"
    assert label_faults({"<": "a < b", ">": "a > b", "=": "a = b"}) == {"<": tags, ">": tags}
    assert label_faults({"long": "a" * 1000}) == {}
    assert label_faults({"long": "a" * 1001})["long"] == "is longer than one line of 1000 characters; rename it"


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], r"my set: labels must be a non-empty list \(or None for an open vocabulary\), got \[\]"),
        ("ab", r"my set: labels must be a non-empty list \(or None for an open vocabulary\), got 'ab'"),
        (["b", "a <"], "my set: label 1 is 'a <': it must not be empty nor contain '<' or '>'"),
        (["a >", "b"], "my set: label 0 is 'a >': it must not be empty nor contain '<' or '>'"),
        (["b", " "], "my set: label 1 is ' ': it must not be empty nor contain '<' or '>'"),
        (["a", "b", "c", "b"], "my set: label 'b' appears more than once"),
    ],
)
def test_the_message_about_labels_that_cannot_be_asked_for(labels, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        check_labels(labels, "my set: ")
