"""Questions on running text that nobody had to write: a repeated phrase is left out.

A sentence is asked for a phrase of its own that already stood in the passage before it (Hill et al.
2016, "The Goldilocks principle", ask so for words). The form is that of SQuAD (Rajpurkar et al.
2016): the answer is a span of the passage.
"""

import hashlib
import re
from typing import Any

from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

STOP_WORDS = ENGLISH_STOP_WORDS | {"shall", "said", "says", "saying"}
BLANK = "_"  # where the phrase stood
LONGEST = 4  # words of a phrase
WORD = re.compile(r"[A-Za-z]+(?:[’'-][A-Za-z]+)*")

Phrase = tuple[int, int, int]  # where it starts and ends, in characters, and its number of words


def cloze(passage: str, sentence: str, name: str) -> dict[str, Any] | None:
    """SQuAD's ``question`` and ``answers``, or None where nothing is repeated.

    The longest phrase of the sentence that the passage has too is left out; of several as long, a
    digest of ``name`` chooses one. It is found wherever it stands in the passage.

    Args:
        passage: what stood before.
        sentence: what is asked with.
        name: of the question.
    """
    places: dict[str, list[int]] = {}
    for start, end, _ in _phrases(passage):
        places.setdefault(passage[start:end], []).append(start)
    found = [phrase for phrase in _phrases(sentence) if sentence[phrase[0] : phrase[1]] in places]
    if not found:
        return None
    most = max(words for *_, words in found)
    longest = [phrase for phrase in found if phrase[2] == most]
    digest = hashlib.sha256(f"bible_cloze:{name}".encode()).digest()
    start, end, _ = longest[int.from_bytes(digest[:4], "big") % len(longest)]
    starts = places[sentence[start:end]]
    return {
        "question": sentence[:start] + BLANK + sentence[end:],
        "answers": {"text": [sentence[start:end]] * len(starts), "answer_start": starts},
    }


def _phrases(text: str) -> list[Phrase]:
    """Words with only spaces between them that neither begin nor end with a stop word."""
    words = list(WORD.finditer(text))
    full = [word.group().lower() not in STOP_WORDS for word in words]
    found: list[Phrase] = []
    for first, word in enumerate(words):
        for last in range(first, min(first + LONGEST, len(words))):
            if last > first and text[words[last - 1].end() : words[last].start()] != " ":
                break  # a punctuation mark ends the phrase
            if full[first] and full[last]:
                found.append((word.start(), words[last].end(), last - first + 1))
    return found
