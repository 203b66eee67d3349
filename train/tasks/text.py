"""What all tasks on tokens share: a tokenizer beside the checkpoints, a model of its size."""

from typing import Any

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


def check_context(recipe: Recipe) -> None:
    """Raises UserError where texts are longer than the model's context."""
    longest, context = recipe.data.max_tokens, recipe.model.context
    if longest > context:
        raise UserError(
            f"data.max_tokens={longest} is more than model.context={context}; set them to the same "
            "number"
        )
