"""A small BERT finds the phrase that was left out of a verse in the three verses before it.

    python -m train run cloze-qa
    python -m train sample runs/cloze-qa --num 5

22,000 questions of the English Bible in SQuAD's form, whole books held out; `--data tfds:squad`
takes SQuAD itself, and measures on its validation split. Nothing is pretrained: what a question
means is learnt from these alone.
"""

from train.config import CheckpointConfig, Recipe
from train.data import AnsweredTextConfig
from train.optim import OptimConfig
from train.tasks.question_answering import QuestionAnsweringConfig
from zoo.models.bert import BERTConfig

RECIPE = Recipe(
    name="cloze-qa",
    model=BERTConfig(
        context=192,
        num_layers=3,
        num_heads=4,
        dim=128,
        hidden_dim=512,
        dropout_rate=0.0,
        pooled=False,
    ),
    task=QuestionAnsweringConfig(max_answer_tokens=12),
    data=AnsweredTextConfig(
        name="bible_cloze",
        tokenizer="wordpiece",
        vocab_size=6000,
        max_tokens=192,
        max_question_tokens=64,
        stride=64,
    ),
    optim=OptimConfig(
        name="muon",
        peak_lr=1e-2,
        momentum=0.95,
        schedule="cosine",
        warmup_steps=200,
        weight_decay=0.01,
        clip_norm=1.0,
    ),
    checkpoint=CheckpointConfig(every=325),
    steps=1300,
    batch_size=32,
    eval_every=325,
    eval_batch_size=64,
)
