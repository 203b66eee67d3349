"""Skip-gram word vectors (Mikolov et al. 2013, "Distributed representations of words and phrases
and their compositionality", sec. 2.2 and eq. 4).

    word w     → table of word vectors    → v_w  ┐
    context c  → table of context vectors → v'_c ┴→ v'_c · v_w, the logit of "c stands near w"

Learning makes the score of words that stand near each other high, and that of words drawn at random
low; what is kept is the first table, in which words of like company lie in like directions.

The paper leaves open where the vectors start: here those of words are U(±1/2D) at first and those
of contexts 0, as in the authors' program.
"""

from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Num

from zoo.functional.init import uniform, zeros
from zoo.functional.ops import Ops
from zoo.layers import Embed
from zoo.layers.check import check_positive, check_tokens


@dataclass(frozen=True, kw_only=True)
class SkipGramConfig:
    """Sizes of the two tables."""

    vocab_size: int = 16_000  # V, words
    dim: int = 100  # D, numbers that describe a word

    def __post_init__(self):
        check_positive(vocab_size=self.vocab_size, dim=self.dim)

    def for_vocab(self, vocab_size: int) -> "SkipGramConfig":
        """This config for so many words."""
        return replace(self, vocab_size=vocab_size)


def scores(words: Float[Array, "B T D"], contexts: Float[Array, "B S D"]) -> Float[Array, "B T S"]:
    """`v'_c · v_w` for each of T word vectors and S context vectors of every row of a batch."""
    return jnp.einsum("btd,bsd->bts", words, contexts)


class SkipGram(nnx.Module):
    """Two vectors a word: one as the word that is looked at, one as a neighbour of others."""

    def __init__(self, config: SkipGramConfig, *, rngs: nnx.Rngs, ops: Ops = Ops()):
        del ops  # a lookup and a product of vectors, which have one implementation
        self.config = config
        start = partial(uniform, limit=0.5 / config.dim)
        self.words = Embed(config.vocab_size, config.dim, rngs=rngs, table_init=start)
        self.contexts = Embed(config.vocab_size, config.dim, rngs=rngs, table_init=zeros)

    def __call__(
        self, words: Num[Array, "..."], contexts: Num[Array, "..."]
    ) -> Float[Array, "B T S"]:
        """Scores `v'_c · v_w` of each of T words with each of S others, in every row of a batch."""
        check_tokens(self, words, self.config.vocab_size)
        check_tokens(self, contexts, self.config.vocab_size)
        return scores(self.words(words), self.contexts(contexts))

    def nearest(
        self, words: Int[Array, " B"], num: int
    ) -> tuple[Int[Array, "B num"], Float[Array, "B num"]]:
        """The `num` words with the largest cosine `v_w · v_u / (|v_w| |v_u|)`, the word itself
        left out, and these cosines."""
        table = self.words.table[...]
        unit = table / jnp.linalg.norm(table, axis=1, keepdims=True)
        cosines = (unit[words] @ unit.T).at[jnp.arange(len(words)), words].set(-jnp.inf)
        values, places = jax.lax.top_k(cosines, num)
        return places, values
