"""What all tasks on tokens share: a tokenizer beside the checkpoints, a model of its size."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from train.config import Recipe
from train.data import tokenizer
from train.errors import UserError
from train.tasks.network import Network


class TextTask(Network):
    """Learns from ``data`` with a ``tokenizer``."""

    def files(self) -> dict[str, str]:
        return {tokenizer.FILE: self.data.tokenizer.to_str(pretty=True)}

    @property
    def model_config(self) -> Any:
        """The recipe's model with as many tokens as there are."""
        return self.recipe.model.for_vocab(self.data.tokenizer.get_vocab_size())

    def readable(self, tokens: Sequence[int] | np.ndarray) -> list[str]:
        """Each token as text, marks too."""
        decode = self.data.tokenizer.decode
        return [decode([int(token)], skip_special_tokens=False) for token in tokens]

    def prompt_tokens(self, prompt: str, *, blank: bool = False) -> np.ndarray:
        """The tokens of a prompt, int32.

        Args:
            prompt: what is given with `--prompt`.
            blank: whether spaces and line breaks alone will do.

        Raises:
            UserError: it has no text, or is not UTF-8.
        """
        check_prompt(prompt)
        tokens = tokenizer.encode(self.data.tokenizer, [prompt])[0]
        if not len(tokens) or not (blank or prompt.strip()):
            raise UserError("--prompt has no text; give at least one word, or leave it out")
        return tokens


def check_prompt(prompt: str) -> None:
    """Raises UserError where a prompt has bytes that are not UTF-8, which come as surrogates."""
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"--prompt is not UTF-8 ({prompt[error.start]!r} at character {error.start}); give it "
            "in that encoding"
        ) from error


def check_context(recipe: Recipe) -> None:
    """Raises UserError where texts are longer than the model's context."""
    longest, context = recipe.data.max_tokens, recipe.model.context
    if longest > context:
        raise UserError(
            f"data.max_tokens={longest} is more than model.context={context}; set them to the same "
            "number"
        )
