"""What a report draws of attention: the weights of the task's own call, of any stack of layers."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import zoo
from tests.close import assert_close
from tests.train import tiny
from train import figures
from train.tasks import attention, make_task
from zoo.functional.attention import attention as plain_attention
from zoo.functional.attention import attention_weights

MOST = 8  # tokens that are drawn here, fewer than the texts have


@pytest.fixture
def drawn(monkeypatch):
    """What is drawn from now on: weights and the words on their two sides."""
    figure, found = figures.attention_figure, []

    def draw(*shown):
        found.append(shown)
        return figure(*shown)

    monkeypatch.setattr(figures, "attention_figure", draw)
    monkeypatch.setattr(attention, "NUM_DRAWN", MOST)
    return found


def recorded(name: str, *more: str) -> tuple[Any, Any, list[jax.Array]]:
    """A tiny task, the same whose attention keeps its weights, and the list of these."""
    task, found = make_task(tiny.recipe(name, *more), zoo.Ops()), list[jax.Array]()

    def keep(q, k, v, mask=None, bias=None):
        found.append(attention_weights(q, k, mask, bias))
        return plain_attention(q, k, v, mask, bias)

    plain = make_task(tiny.recipe(name), dataclasses.replace(task.ops, attention=keep))
    return task, plain, found


def check(drawn, layers, words, columns, begin=0):
    """Raises AssertionError unless the first and the last layer's first rows are drawn."""
    assert len(drawn) == 2
    for (weights, *sides), layer in zip(drawn, (layers[0], layers[-1]), strict=True):
        assert sides == [words, columns]
        assert_close(weights, layer[0, :, : len(words), begin : begin + len(columns)])


def test_a_question_looks_at_its_passage(drawn):
    task, plain, found = recorded("cloze-qa")
    task._attention_sections(task.build(nnx.Rngs(0)))
    first = next(i for i in range(30) if task.data.eval.columns["targets"][i][0] == 0)
    batch = task.data.eval.gather(first + np.arange(3))  # of the first no answer is at [CLS]
    plain.predict(plain.build(nnx.Rngs(0)), jax.tree.map(jnp.asarray, plain.query(batch)))
    tokens, passage = batch["inputs"][0], int(batch["passages"][0])
    names = [task.data.tokenizer.id_to_token(int(token)) for token in tokens]
    answer = int((batch["targets"][0] > 0).argmax())
    (begin,) = {  # where the drawn part of the passage starts: the answer is in it
        i for i in range(passage, answer + 1) if names[i : i + MOST] == drawn[0][2]
    }
    assert begin + MOST > answer and names[0] == "[CLS]"
    check(drawn, found, names[:MOST], names[begin : begin + MOST], begin)


def test_a_sentence_of_a_tagger(drawn):
    task, plain, found = recorded("intents-srl")
    none = {name: np.zeros(0, int) for name in ("target", "predicted", "words")}
    task.sections(task.build(nnx.Rngs(0)), none)
    batch = task.data.eval.gather(np.arange(3))
    plain.predict(plain.build(nnx.Rngs(0)), jax.tree.map(jnp.asarray, plain.query(batch)))
    length = int(batch["inputs_lengths"][0])
    names = [task.data.tokenizer.id_to_token(int(i)) for i in batch["inputs"][0, :length][:MOST]]
    check(drawn, found, names, names)


def test_a_text_of_a_masked_language_model(drawn):
    task, plain, found = recorded("bible-bert")
    task.sections(task.build(nnx.Rngs(0)), {})
    text = task.data.eval.gather(np.arange(1))["inputs"]
    tokens = np.concatenate([[[task.data.tokenizer.token_to_id("[CLS]")]], text], axis=1)
    plain.predict(plain.build(nnx.Rngs(0)), jnp.asarray(tokens))
    names = [task.data.tokenizer.id_to_token(int(token)) for token in tokens[0, :MOST]]
    assert names[0] == "[CLS]"
    check(drawn, found, names, names)


@pytest.mark.parametrize(
    "words", ["", "--model.scan", "--model.remat", "--model.scan --model.remat"]
)
def test_a_decoder_looks_at_the_whole_source(drawn, words):
    task, plain, found = recorded("translate-en-es", words)
    data, objects = task.data, task.build(nnx.Rngs(0))
    end = data.tokenizer.token_to_id("[EOS]")
    written = np.full((len(data.eval), 5), 7)
    written[:, 4] = end
    task._attention_sections(objects, {"written": written})
    decoder = objects["model"].decoder  # the view that was drawn from has changed nothing of it
    assert (decoder.scan, decoder.remat) == ("scan" in words, "remat" in words)
    source = data.eval.columns["source"][0]
    assert len(source) > MOST
    model = plain.trained(plain.build(nnx.Rngs(0)))
    memory = model.encode(jnp.asarray(source)[None])
    found.clear()
    begin = data.tokenizer.token_to_id("[BOS]")
    model.decode(jnp.array([[begin, 7, 7, 7, 7]]), memory)
    decode = data.tokenizer.decode
    names = [decode([int(token)], skip_special_tokens=False) for token in source[:MOST]]
    check(drawn, found[1::2], [decode([7])] * 4 + ["[EOS]"], names)


def test_of_a_model_without_attention_nothing_is_drawn(drawn):
    task: Any = make_task(tiny.recipe("bible-lstm-lm"), zoo.Ops())
    model = task.trained(task.build(nnx.Rngs(0)))
    layers = attention.seen(model, lambda model: model(jnp.ones((1, 3), int)))
    assert layers == [] and attention.sections(layers, ["a"] * 3) == [] and not drawn
