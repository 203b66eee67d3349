"""How good word vectors are: relatedness as people rate it, and analogies; on the host.

WordSim-353 (Finkelstein et al. 2002) is 353 pairs of words with people's ratings, questions-words
(Mikolov et al. 2013) 19,544 questions such as "man is to woman as king is to ...". Those with a
word that the vocabulary lacks are left out, so scores compare only for one vocabulary.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from train.data import embedded
from train.data.words import Vocabulary
from train.errors import UserError

FEWEST_PAIRS = 3  # of two pairs the rank correlation is always 1 or -1
_QUESTIONS_AT_ONCE = 512  # bounds the memory of their scores with all words

Vectors = Float[np.ndarray, "V D"]


@dataclass(frozen=True)
class WordQuestions:
    """The pairs and questions whose words are all known, as numbers."""

    pairs: np.ndarray
    """[P, 2]."""
    ratings: np.ndarray
    """[P], from 0 to 10."""
    analogies: np.ndarray
    """[Q, 4]: a is to b as c is to d."""

    def scores(self, vectors: Vectors) -> dict[str, float]:
        """What word vectors reach, and on how many pairs and questions."""
        unit = normalized(vectors)
        return {
            "wordsim_spearman": self.spearman(unit),
            "wordsim_pairs": float(len(self.pairs)),
            "analogy_accuracy": self.analogy_accuracy(unit),
            "analogies": float(len(self.analogies)),
        }

    def spearman(self, unit: Vectors) -> float:
        """The rank correlation of cosines and ratings."""
        from scipy.stats import spearmanr

        a, b = unit[self.pairs[:, 0]], unit[self.pairs[:, 1]]
        found: Any = spearmanr((a * b).sum(1), self.ratings)  # scipy annotates it as a plain tuple
        return float(found.statistic)

    def analogy_accuracy(self, unit: Vectors) -> float:
        """The share of questions with ``d = argmax_x cos(x, b - a + c)`` over all words x but
        a, b and c (Mikolov et al. 2013); 0 where there are none."""
        right = 0
        for start in range(0, len(self.analogies), _QUESTIONS_AT_ONCE):
            asked = self.analogies[start : start + _QUESTIONS_AT_ONCE]
            a, b, c = (unit[asked[:, column]] for column in range(3))
            cosines = (b - a + c) @ unit.T  # but for the length of b - a + c, the same for all x
            np.put_along_axis(cosines, asked[:, :3], -np.inf, axis=1)
            right += int((cosines.argmax(1) == asked[:, 3]).sum())
        return right / max(len(self.analogies), 1)


def normalized(vectors: Vectors) -> Vectors:
    """Vectors of length 1 in the same directions."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def load_questions(vocabulary: Vocabulary) -> WordQuestions:
    """The embedded pairs and questions of a vocabulary.

    Raises:
        UserError: too few pairs are known.
    """
    table = [line.split("\t") for line in embedded.read("wordsim353.tsv").splitlines()[1:]]
    pairs = [(known, float(r)) for *words, r in table if (known := vocabulary.known(words))]
    if len(pairs) < FEWEST_PAIRS:
        raise UserError(
            f"the text has both words of {len(pairs)} of the {len(table)} pairs of WordSim-353, "
            f"{FEWEST_PAIRS} are needed; give more English text or a smaller data.min_count"
        )
    lines = embedded.read("questions-words.txt.xz").splitlines()
    questions = [line.split() for line in lines if not line.startswith(":")]
    analogies = [known for words in questions if (known := vocabulary.known(words))]
    return WordQuestions(
        pairs=np.array([known for known, _ in pairs]),
        ratings=np.array([rating for _, rating in pairs]),
        analogies=np.array(analogies, np.int64).reshape(-1, 4),
    )
