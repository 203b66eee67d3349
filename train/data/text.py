"""Running text: read, cleaned, cut into tokens, and seen through windows of fixed length."""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from tokenizers import Tokenizer

from train.data import records
from train.data.config import TextConfig
from train.data.dataset import Batch, Cleaning
from train.data.prepare import folder_of
from train.data.tokenizer import encode, joined, train_tokenizer
from train.errors import UserError


class WindowSource:
    """All windows of one long text: row i holds the tokens from `i · stride` on.

    ``inputs`` [B, T] are T tokens and ``targets`` [B, T] the T after each of them. With a stride of
    T the windows tile the text; what is left at its end, less than a window, belongs to none.
    """

    in_memory: ClassVar[bool] = True

    def __init__(self, tokens: np.ndarray, num_tokens: int, stride: int):
        self.tokens, self.num_tokens, self.stride = tokens, num_tokens, stride

    def __len__(self) -> int:
        return max((len(self.tokens) - self.num_tokens - 1) // self.stride + 1, 0)

    def gather(self, indices: np.ndarray) -> Batch:
        """The windows at ``indices``."""
        places = indices[:, None] * self.stride + np.arange(self.num_tokens + 1)
        window = self.tokens[places]
        return {"inputs": window[:, :-1], "targets": window[:, 1:]}

    def arrays(self) -> Batch:
        """All windows, in as much memory as they take."""
        return self.gather(np.arange(len(self)))


@dataclass(frozen=True)
class RunningText:
    """A text in tokens, split in two, with the tokenizer that cut it."""

    name: str
    train: WindowSource
    eval: WindowSource
    tokenizer: Tokenizer
    chars_per_token: float
    """Characters of the eval split over its tokens: what makes losses comparable."""
    cleaning: Cleaning = field(default_factory=Cleaning)

    def frequencies(self) -> np.ndarray:
        """The share [V] of each token in the train split, one added to all counts (Laplace)."""
        counts = np.bincount(self.train.tokens, minlength=self.tokenizer.get_vocab_size()) + 1
        return counts / counts.sum()


def load_text(config: TextConfig, window: int, tokenizer: Tokenizer | None = None) -> RunningText:
    """Reads, cleans and tokenises a text set for windows of ``window`` tokens.

    Args:
        config: what to read.
        window: how many tokens are learnt from at a time.
        tokenizer: to use instead of one trained on the train split.

    Raises:
        UserError: one line that says what is wrong with the configuration or the data.
    """
    prepared, (column,) = records.open_columns(
        folder_of(config.name, config.data_dir), records.Wanted("text", config.column)
    )
    lines: list[list[str]] = []
    dropped = 0
    for split in (config.train_split, config.eval_split):
        reader = records.RecordReader(prepared, split)
        texts = reader.read(range(len(reader)))[column].tolist()
        kept = [text for text in texts if text.strip()]
        dropped += len(texts) - len(kept)
        if not kept:
            raise UserError(f"{reader.where} has no text; at least one line is needed")
        lines.append(joined(kept))
    tokenizer = tokenizer or train_tokenizer(config.tokenizer, config.vocab_size, lines[0])
    train, held_out = (np.concatenate(encode(tokenizer, part)) for part in lines)
    sources = WindowSource(train, window, 1), WindowSource(held_out, window, window)
    for split, source in zip((config.train_split, config.eval_split), sources, strict=True):
        if not len(source):
            raise UserError(
                f"split {split!r} of {prepared.folder} has {len(source.tokens)} tokens, fewer than "
                f"one window of {window} and its next; give more text or a smaller task.window"
            )
    return RunningText(
        name=config.name,
        train=sources[0],
        eval=sources[1],
        tokenizer=tokenizer,
        chars_per_token=sum(map(len, lines[1])) / len(held_out),
        cleaning=Cleaning(
            train_rows=len(lines[0]), eval_rows=len(lines[1]), missing_dropped=dropped
        ),
    )
