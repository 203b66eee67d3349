"""GPT against GPT-2 of `transformers`: logits and the gradient of every parameter."""

import numpy as np
import pytest
from flax import nnx

from tests.close import assert_close
from tests.zoo.compare import randomized, run_on_tokens, weighting
from zoo.models.gpt import GPT, GPTConfig

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

CONFIG = GPTConfig(vocab_size=31, context=12, num_layers=2, num_heads=4, dim=16)
PLACES = {
    "tokens.table": "wte.weight",
    "positions.table": "wpe.weight",
    "norm": "ln_f",
    "norm1": "ln_1",
    "norm2": "ln_2",
    "attention.qkv": "attn.c_attn",
    "attention.out": "attn.c_proj",
    "mlp.up": "mlp.c_fc",
    "mlp.down": "mlp.c_proj",
    "scale": "weight",
    "kernel": "weight",  # GPT-2's Conv1D is [in, out], as ours
    "bias": "bias",
}


def place(path: str) -> str:
    """Where `transformers` keeps the parameter of one of our paths."""
    if path in PLACES:
        return PLACES[path]
    layer, leaf = path.rsplit(".", 1)
    prefix = ""
    if layer.startswith("blocks.blocks."):
        number, layer = layer.removeprefix("blocks.blocks.").split(".", 1)
        prefix = f"h.{number}."
    return f"{prefix}{PLACES[layer]}.{PLACES[leaf]}"


def test_gpt2():
    model = randomized(lambda: GPT(CONFIG, rngs=nnx.Rngs(0)))
    twin = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=31, n_positions=12, n_embd=16, n_layer=2, n_head=4,
            resid_pdrop=0, embd_pdrop=0, attn_pdrop=0,
        )
    )  # fmt: skip
    twins = dict(twin.transformer.named_parameters())
    ours = {".".join(map(str, p)): v for p, v in nnx.to_flat_state(nnx.state(model))}
    assert {place(path) for path in ours} == set(twins)
    with torch.no_grad():
        for path, variable in ours.items():
            twins[place(path)].copy_(torch.tensor(np.asarray(variable[...])))
    tokens = np.random.default_rng(0).integers(0, 31, (3, 12)).astype(np.int32)

    logits, gradients = run_on_tokens(model, tokens)
    expected = twin(torch.tensor(tokens, dtype=torch.long)).logits
    expected.backward(torch.tensor(weighting(tuple(expected.shape))))
    assert_close(logits, expected, kind="composite")
    expected_gradients = {path: twins[place(path)].grad.numpy() for path in gradients}
    assert_close(gradients, expected_gradients, kind="composite")
