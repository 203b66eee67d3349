"""Two LSTMs with attention on the verses of translate-en-es, whose baseline they are.

    python -m train run translate-lstm

About as many parameters as the Transformer has, and the same pieces, steps and batches.
"""

import dataclasses

from train.config import Recipe
from train.recipes.translate_en_es import RECIPE as TRANSFORMER
from train.tasks.sequence_to_sequence import SequenceToSequenceConfig
from zoo.models.seq2seq import LSTMSeq2SeqConfig

RECIPE: Recipe = dataclasses.replace(
    TRANSFORMER,
    name="translate-lstm",
    model=LSTMSeq2SeqConfig.nano(),
    task=SequenceToSequenceConfig(baseline="copy"),
    optim=dataclasses.replace(TRANSFORMER.optim, peak_lr=1e-2),
)
