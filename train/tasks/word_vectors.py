"""Word vectors: a word is described by the words that stand near it."""

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Int

import zoo
from train import figures, text_baselines
from train.config import Recipe
from train.data.words import Draws, WordText, load_words
from train.errors import UserError
from train.gradient import Batch, Metrics
from train.losses import shared_negative_sampling
from train.report import Section, Table
from train.step import Objects
from train.sync import Sync
from train.task import Baseline, Outputs, SampleRequest
from train.tasks.network import Network
from train.word_scores import load_questions, normalized
from zoo.models.word2vec import scores

VOCABULARY = "vocabulary.tsv"
SHOWN = ("king", "son", "bread", "sea", "file", "music", "server", "language")  # in the report
NUM_DRAWN = 60  # words of the projection
SHORT_WORD = 3  # letters; "the" and its like have no company of their own


@dataclass(frozen=True, kw_only=True)
class WordVectorsConfig:
    """What stands near a word, what does not, and what the vectors are compared with."""

    window: int = 5  # largest distance of a pair; each word draws its own from 1 to this
    negatives: int = 5  # K, random words that a pair is told from
    sample: float = 1e-3  # words more frequent than this share are thinned out; 0: none are
    noise_power: float = 0.75  # random words are drawn by their count to this power
    passes: int = 5  # over the text with draws of their own, before they come again
    block: int = 64  # successive words whose scores are one product, a row of a batch
    noise_words: int = 32  # random words of a block, each counting negatives / noise_words
    update_size: int = 4  # blocks of one update; batch_size / update_size updates make a step
    baseline: Literal["none", "gensim"] = "gensim"  # what it must come near

    def __post_init__(self):
        sizes = ("window", "negatives", "passes", "block", "noise_words", "update_size")
        for name in sizes:
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"{name}={value} must be at least 1")
        if not 0 <= self.sample < 1:
            raise ValueError(f"sample={self.sample} must lie in [0, 1); 0 keeps every word")
        if not 0 <= self.noise_power <= 1:
            raise ValueError(f"noise_power={self.noise_power} must lie in [0, 1]")


class WordVectors(Network):
    """Skip-gram with negative sampling by stochastic gradient descent, block by block.

    A step is a sequence of small updates, each by the *sum* of the gradients of its pairs, as if
    one pair came after the other (Mikolov et al. 2013): a mean over a large batch would hardly move
    the vector of a word that occurs in it once. And an update changes the rows of the tables that
    it read and no others, since of all others the gradient is 0.
    """

    summary_metric = "train/learning_rate"
    data: WordText

    @classmethod
    def load(cls, recipe: Recipe, folder: Path | None = None) -> WordText:
        del folder  # the same text has the same vocabulary
        _check(recipe)
        config: WordVectorsConfig = recipe.task
        draws = Draws(
            window=config.window,
            sample=config.sample,
            noise_power=config.noise_power,
            noise_words=config.noise_words,
            block=config.block,
            passes=config.passes,
            seed=recipe.seed,
        )
        return load_words(recipe.data, draws)

    def __init__(self, recipe: Recipe, data: WordText, ops):
        super().__init__(recipe, data, ops)
        self.questions = load_questions(data.vocabulary)

    @property
    def config(self) -> WordVectorsConfig:
        return self.recipe.task

    def files(self) -> dict[str, str]:
        vocabulary = self.data.vocabulary
        rows = zip(vocabulary.words, vocabulary.counts.tolist(), strict=True)
        return {VOCABULARY: "".join(f"{word}\t{count}\n" for word, count in rows)}

    @property
    def pieces(self) -> int:
        return self.recipe.batch_size // self.config.update_size

    def build(self, rngs: nnx.Rngs) -> Objects:
        config = self.recipe.model.for_vocab(len(self.data.vocabulary))
        return self.network(zoo.build(config, rngs=rngs, ops=self.ops), rngs)

    def train_step(self, objects: Objects, batch: Batch, sync: Sync) -> Metrics:
        model, optimizer = objects["model"], objects["optimizer"]
        lr = optimizer.learning_rate()
        size = self.config.update_size // sync.num_devices  # of these rows
        updates = jax.tree.map(lambda x: x.reshape(-1, size, *x.shape[1:]), batch)
        tables = model.words.table[...], model.contexts.table[...]
        tables, (losses, pairs) = jax.lax.scan(
            lambda tables, blocks: self.update(tables, blocks, lr, sync), tables, updates
        )
        model.words.table[...], model.contexts.table[...] = tables
        optimizer.step[...] += 1
        loss = sync(losses.sum()) / sync(pairs.sum())
        return {"train/loss": loss, "train/learning_rate": lr}

    def update(self, tables, blocks: Batch, lr: jax.Array, sync: Sync):
        """One update ``θ ← θ - α Σ ∇L`` of the rows that some blocks read.

        Args:
          tables: of words and of contexts, [V D] each.
          blocks: as a :class:`train.data.words.SkipGramSource` gives them.
          lr: α.
          sync: how to see the blocks of the other devices.

        Returns:
          The new tables; the loss summed over all pairs, and how many they are.
        """
        words, contexts = tables
        window = self.config.window
        middle = blocks["words"][:, window:-window]
        # Words around and noise in one table of rows: one product of matrices, one update.
        others = jnp.concatenate([blocks["words"], blocks["noise"]], axis=1)
        is_pair = pairs_of(blocks["before"], blocks["after"], window)

        def loss(v, u):
            v, u = (x.astype(self.recipe.compute_dtype) for x in (v, u))
            near, noise = jnp.split(scores(v, u), [blocks["words"].shape[1]], axis=2)
            return shared_negative_sampling(near, is_pair, noise, self.config.negatives).sum()

        total, (grad_v, grad_u) = jax.value_and_grad(loss, argnums=(0, 1))(
            words[middle], contexts[others]
        )
        middle, grad_v, others, grad_u = sync.gather((middle, grad_v, others, grad_u))
        # `add` sums over the places at which a word occurs more than once.
        tables = words.at[middle].add(-lr * grad_v), contexts.at[others].add(-lr * grad_u)
        return tables, (total, is_pair.sum())

    def eval_step(self, objects: Objects, batch: Batch) -> dict[str, jax.Array]:
        return self.predict(objects, batch["inputs"])

    def predict(self, objects: Objects, inputs: jax.Array) -> dict[str, jax.Array]:
        return {"vector": objects["model"].words(inputs)}

    def summarise(self, outputs: Outputs) -> dict[str, float]:
        return self.questions.scores(outputs["vector"])

    def baseline(self, folder: Path) -> Baseline | None:
        if self.config.baseline == "none":
            return None
        vectors = text_baselines.gensim_vectors(self.data, self.recipe)
        score = self.questions.scores(vectors)["wordsim_spearman"]
        return Baseline("gensim Word2Vec", score)

    def sections(self, objects: Objects, outputs: Outputs) -> list[Section]:
        words = [word for word in SHOWN if word in self.data.vocabulary.index]
        found = [(word, self.nearest(objects, word, 8)) for word in words]
        common = [i for i, w in enumerate(self.data.vocabulary.words) if len(w) > SHORT_WORD]
        common = common[:NUM_DRAWN]
        return [
            Section(
                "Nearest words",
                "The words whose vectors have the largest cosines with that of the first.",
                Table(
                    ("word", "nearest"),
                    [(word, ", ".join(other for other, _ in near)) for word, near in found],
                ),
            ),
            Section(
                "The most frequent words in two dimensions",
                f"The {len(common)} most frequent words of more than {SHORT_WORD} letters, along "
                "the two directions in which their vectors of length 1 differ most.",
                figures.projection_figure(
                    normalized(outputs["vector"])[common],
                    [self.data.vocabulary.words[i] for i in common],
                ),
            ),
        ]

    def nearest(self, objects: Objects, word: str, num: int) -> list[tuple[str, float]]:
        """The ``num`` words nearest to a known one, and their cosines."""
        number = jnp.array([self.data.vocabulary.index[word]])
        places, cosines = objects["model"].nearest(number, num)
        return [
            (self.data.vocabulary.words[place], float(cosine))
            for place, cosine in zip(places[0].tolist(), cosines[0].tolist(), strict=True)
        ]

    def sample(self, objects: Objects, request: SampleRequest) -> list[dict[str, Any]]:
        """The words nearest to a prompt, or to the most frequent long word where none is given."""
        vocabulary = self.data.vocabulary
        if request.out is not None:
            raise UserError(f"--out {request.out}: words are printed and not drawn; leave it out")
        long = (word for word in vocabulary.words if len(word) > SHORT_WORD)
        prompt = next(long, vocabulary.words[0]) if request.prompt is None else request.prompt
        word = prompt.strip().lower()
        if word not in vocabulary.index:
            close = difflib.get_close_matches(word, vocabulary.words, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else "; give one word of the text"
            raise UserError(
                f"--prompt {prompt!r} is no word that the text holds "
                f"{self.recipe.data.min_count} times or more{hint}"
            )
        most = len(vocabulary) - 1
        num = min(16, most) if request.num is None else request.num
        if num > most:
            raise UserError(f"--num {num}: there are {most} other words; ask for at most so many")
        return [
            {"word": word, "near": near, "cosine": cosine}
            for near, cosine in self.nearest(objects, word, num)
        ]


def pairs_of(
    before: Int[Array, "B T"], after: Int[Array, "B T"], window: int
) -> Bool[Array, "B T S"]:
    """Which of the S = T + 2·window words around a block each of its words is paired with."""
    num_words = before.shape[1]
    place = jnp.arange(num_words + 2 * window) - window  # 0 is the first word of the block
    distance = place - jnp.arange(num_words)[:, None]
    reached = (-before[..., None] <= distance) & (distance <= after[..., None])
    return reached & (distance != 0)


def _check(recipe: Recipe) -> None:
    """Refuses what this way of updating has no place for."""
    size = recipe.task.update_size
    if recipe.batch_size % size:
        raise UserError(
            f"batch_size={recipe.batch_size} must be a multiple of task.update_size={size}"
        )
    optim = recipe.optim
    if optim.name != "gradient-descent":
        raise UserError(
            f"optim.name={optim.name!r}: word vectors learn by gradient-descent alone, which moves "
            "no vector but those that a block reads; leave it out"
        )
    for name, value in (("clip-norm", optim.clip_norm), ("ema-decay", optim.ema_decay)):
        if value is not None:
            raise UserError(
                f"optim.{name}={value} would touch every word at each of the many small updates; "
                "leave it out"
            )
    if recipe.num_microbatches != 1:
        raise UserError(
            f"num_microbatches={recipe.num_microbatches}: a step takes its blocks "
            f"task.update_size={size} at a time already; set that instead"
        )
