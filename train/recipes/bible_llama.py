"""A character Llama on the English Bible, with the text, batches and optimiser of bible-gpt.

    python -m train run bible-llama
    python -m train sample runs/bible-llama --prompt "In the beginning"
    python -m train run bible-llama --model.num-experts 4     # a mixture of experts

As many parameters and steps as bible-gpt: what differs between the two runs is what Llama changed,
its norms, its gated feed-forward network, its rotated positions and its shared key heads.
"""

from dataclasses import replace

from train.recipes import bible_gpt
from zoo.models.llama import LlamaConfig

RECIPE = replace(bible_gpt.RECIPE, name="bible-llama", model=LlamaConfig.nano())
