"""What all tasks on tokens share: a tokenizer beside the checkpoints, a model of its size."""

from typing import Any

from train.data import tokenizer
from train.tasks.network import Network


class TextTask(Network):
    """Learns from ``data`` with a ``tokenizer``."""

    def files(self) -> dict[str, str]:
        return {tokenizer.FILE: self.data.tokenizer.to_str(pretty=True)}

    @property
    def model_config(self) -> Any:
        """The recipe's model with as many tokens as there are."""
        return self.recipe.model.for_vocab(self.data.tokenizer.get_vocab_size())
