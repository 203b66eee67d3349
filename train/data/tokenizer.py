"""Text to token numbers and back, by the `tokenizers` library; one JSON file holds a tokenizer.

byte       every byte is a token; nothing is ever unknown
character  every character of the train split is a token
word       the most frequent lower-cased words and punctuation marks
bpe        the most frequent pairs of neighbours are merged, from bytes up (Sennrich et al. 2016)
wordpiece  pieces of lower-cased words, as BERT's (Schuster & Nakajima 2012; Devlin et al. 2019)
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from train.errors import UserError

FILE = "tokenizer.json"  # beside the checkpoints
UNKNOWN = "[UNK]"
PAD = "[PAD]"
BEGIN, END = "[BOS]", "[EOS]"  # of a text that is written from another
WORDPIECE_MARKS = (PAD, UNKNOWN, "[CLS]", "[SEP]", "[MASK]")
LINES_AT_ONCE = 4096  # bounds the memory of encodings, which hold far more than token numbers


def train_tokenizer(
    kind: str, vocab_size: int, texts: Sequence[str], marks: Sequence[str] = ()
) -> Tokenizer:
    """A tokenizer of a kind, fitted to texts; the same texts give the same tokenizer.

    Args:
        kind: "byte", "character", "word", "bpe" or "wordpiece".
        vocab_size: at most so many tokens for word, bpe and wordpiece; wordpiece, which has two for
            each letter, leaves the rarest letters out where there are too many.
        texts: the train split.
        marks: special tokens beside the kind's own, numbered last.
    """
    tokenizer = _KINDS[kind](vocab_size - len(marks), texts)
    tokenizer.add_special_tokens(list(marks))
    return _reading_marks_as_text(tokenizer)


def _reading_marks_as_text(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer, to which "[EOS]" in a text is five characters: marks are put in by number.

    Its JSON does not hold this, so it is set anew whenever one is read.
    """
    tokenizer.encode_special_tokens = True
    return tokenizer


def _byte(vocab_size: int, texts: Sequence[str]) -> Tokenizer:
    del vocab_size, texts  # the same for every text
    return _byte_level(models.BPE(_bytes(), []))


def _bytes() -> dict[str, int]:
    """The library's printable stand-ins for the 256 bytes, numbered."""
    return {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}


def _byte_level(model: models.Model) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _character(vocab_size: int, texts: Sequence[str]) -> Tokenizer:
    del vocab_size
    alphabet = sorted(set().union(*texts) | {"\n"})
    vocab = {UNKNOWN: 0, **{c: i for i, c in enumerate(alphabet, start=1)}}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return tokenizer


def _word(vocab_size: int, texts: Sequence[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel(unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordLevelTrainer(
        vocab_size=vocab_size, special_tokens=[PAD, UNKNOWN], show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer, len(texts))
    return tokenizer


def _bpe(vocab_size: int, texts: Sequence[str]) -> Tokenizer:
    tokenizer = _byte_level(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer, len(texts))
    return tokenizer


def _wordpiece(vocab_size: int, texts: Sequence[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    # The trainer numbers the letters inside words in the order of a hash table, and breaks ties by
    # number: given first, they have the same numbers in every run.
    counts = Counter()
    for text in texts:
        counts.update(tokenizer.normalizer.normalize_str(text))
    most = (vocab_size - len(WORDPIECE_MARKS)) // 2
    by_count = sorted(counts.keys() - {" ", "\n"}, key=lambda c: (-counts[c], c))
    letters = sorted(by_count[:most])
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        special_tokens=[*WORDPIECE_MARKS, *letters, *(f"##{letter}" for letter in letters)],
        initial_alphabet=letters,
        limit_alphabet=len(letters),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer, len(texts))
    # Letters are no marks in the end: the same vocabulary, in a tokenizer that knows only the five.
    model = models.WordPiece(tokenizer.get_vocab(with_added_tokens=True), unk_token=UNKNOWN)
    trained = Tokenizer(model)
    trained.normalizer, trained.pre_tokenizer = tokenizer.normalizer, tokenizer.pre_tokenizer
    trained.decoder = tokenizer.decoder
    trained.add_special_tokens(list(WORDPIECE_MARKS))
    return trained


_KINDS: dict[str, Callable[[int, Sequence[str]], Tokenizer]] = {
    "byte": _byte,
    "character": _character,
    "word": _word,
    "bpe": _bpe,
    "wordpiece": _wordpiece,
}


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> list[np.ndarray]:
    """The token numbers of each text, int32, without special tokens."""
    encoded: list[np.ndarray] = []
    for start in range(0, len(texts), LINES_AT_ONCE):
        batch = tokenizer.encode_batch_fast(
            list(texts[start : start + LINES_AT_ONCE]), add_special_tokens=False
        )
        encoded += [np.array(encoding.ids, np.int32) for encoding in batch]
    return encoded


def truncated(tokens: Sequence[np.ndarray], longest: int) -> tuple[list[np.ndarray], int]:
    """Each text's first tokens, and how many texts had more."""
    return [row[:longest] for row in tokens], sum(len(row) > longest for row in tokens)


def unknown_parts(tokenizer: Tokenizer, text: str) -> list[str]:
    """The words or characters of a text that the tokenizer turns into its unknown token."""
    unknown = tokenizer.token_to_id(UNKNOWN)
    encoding = tokenizer.encode(text, add_special_tokens=False)
    places = zip(encoding.ids, encoding.offsets, strict=True)
    return sorted({text[start:end] for token, (start, end) in places if token == unknown})


def load_tokenizer(path: Path) -> Tokenizer:
    """A tokenizer from its JSON file, which is parsed and never executed.

    Raises:
        UserError: when the file is missing or damaged.
    """
    try:
        return _reading_marks_as_text(Tokenizer.from_str(path.read_text()))
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}); it belongs beside the checkpoints, and "
            "the run's own command writes it again"
        ) from error
    except Exception as error:  # the library raises plain Exception
        raise UserError(f"{path} is no tokenizer ({error}); run the recipe again") from error


def of_run(folder: Path | None) -> Tokenizer | None:
    """The tokenizer that a run keeps beside its checkpoints; none where no run is opened again.

    Raises:
        UserError: as :func:`load_tokenizer`.
    """
    return load_tokenizer(folder / FILE) if folder else None


def joined(texts: Iterable[str]) -> list[str]:
    """Each text as a line of running text, its end included."""
    return [f"{text}\n" for text in texts]
