import re
from collections import Counter
from functools import cache
from itertools import islice
from pathlib import Path

import pocketsphinx
import pytest

from training.corpus.text import FIXED, TEMPLATES, WORDS, sentences


def words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


@cache
def pronunciations() -> dict[str, list[str]]:
    """The first pronunciation of each word, from the dictionary in pocketsphinx's wheel."""
    path = Path(pocketsphinx.get_model_path()) / "en-us" / "cmudict-en-us.dict"
    entries = (line.split() for line in path.read_text().splitlines())
    return {word: phones for word, *phones in entries}


def test_the_same_seed_gives_the_same_sentences_and_another_seed_others():
    first, again, other = (list(islice(sentences(seed), 200)) for seed in (3, 3, 4))
    assert first == again
    assert first != other


def test_sentences_rarely_repeat():
    assert len(set(islice(sentences(0), 1000))) > 850


def test_every_sentence_is_printable_ascii_with_words_and_ends_a_sentence():
    for text in islice(sentences(1), 2000):
        assert text.isascii()
        assert text.isprintable()
        assert words(text)
        assert not set("{}0123456789") & set(text)
        assert text[-1] in ".?!"
        assert "  " not in text


def test_a_becomes_an_before_a_vowel_only():
    spoken = " ".join(islice(sentences(2), 20_000))
    assert re.search(r"\ban unusual\b", spoken)
    assert re.search(r"\ba useful\b", spoken)
    assert not re.search(r"\ba [aeio]", spoken)
    assert not re.search(r"\ban (?![aeiou])", spoken)


def test_there_are_questions_commas_and_short_utterances():
    some = list(islice(sentences(5), 500))
    assert sum("?" in text for text in some) > 40
    assert sum("," in text for text in some) > 100
    assert sum(len(words(text)) <= 3 for text in some) > 25


def test_every_word_is_in_the_pronouncing_dictionary():
    said = {word for text in TEMPLATES + FIXED for word in words(re.sub(r"\{\w+\}", " ", text))}
    said |= {word.lower() for kind in WORDS.values() for word in kind}
    assert said - pronunciations().keys() == set()
    assert len(said) > 700


def test_every_phone_is_common():
    """Each of the 39 is in at least one sentence of forty."""
    some = list(islice(sentences(0), 1000))
    counts = Counter(phone for text in some for phone in {p for word in words(text) for p in pronunciations()[word]})
    assert len(counts) == 39
    assert min(counts.values()) >= 25


@pytest.mark.parametrize("phone", ["P", "B", "M", "F", "V"])
def test_labials_come_at_the_start_in_the_middle_and_at_the_end_of_words(phone):
    said = [pronunciations()[word] for text in islice(sentences(0), 1000) for word in words(text)]
    assert sum(phones[0] == phone for phones in said) > 50
    assert sum(phone in phones[1:-1] for phones in said) > 50
    assert sum(phones[-1] == phone for phones in said) > 50
