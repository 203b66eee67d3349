"""Multi-head attention against PyTorch's: outputs, weights, gradients; ALiBi against BLOOM's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.close import assert_close
from tests.zoo.compare import by_path, random, randomized, weighting
from zoo.functional.attention import Mask, attention, attention_weights
from zoo.functional.position import alibi
from zoo.layers import MultiHeadAttention

torch = pytest.importorskip("torch")

ROWS, QUERIES, KEYS, DIM, HEADS = 2, 5, 7, 16, 4
X, MEMORY = random(ROWS, QUERIES, DIM), random(ROWS, KEYS, DIM, seed=1)
BIAS = random(ROWS, HEADS, QUERIES, KEYS, seed=2)
LATER = torch.ones(QUERIES, QUERIES, dtype=torch.bool).triu(1)


def padding(lengths: list[int], num_keys: int):
    """Where keys are no text, as PyTorch wants it."""
    return torch.arange(num_keys) >= torch.tensor(lengths)[:, None]


CASES = {  # settings of our layer; what it looks at, with what; the same for PyTorch
    "self": ({}, {}, {}),
    "self, no biases": ({"use_bias": False}, {}, {}),
    "self, padding": (
        {},
        {"mask": Mask(lengths=jnp.array([5, 3]))},
        {"key_padding_mask": padding([5, 3], QUERIES)},
    ),
    "self, causal": ({}, {"mask": Mask(causal=True)}, {"attn_mask": LATER}),
    "self, causal, padding": (
        {},
        {"mask": Mask(causal=True, lengths=jnp.array([2, 4]))},
        {"attn_mask": LATER, "key_padding_mask": padding([2, 4], QUERIES)},
    ),
    "cross": ({}, {"memory": MEMORY}, {}),
    "cross, padding": (
        {},
        {"memory": MEMORY, "mask": Mask(lengths=jnp.array([1, 6]))},
        {"key_padding_mask": padding([1, 6], KEYS)},
    ),
    "cross, bias": (
        {},
        {"memory": MEMORY, "bias": BIAS},
        {"attn_mask": torch.tensor(np.asarray(BIAS)).flatten(0, 1)},
    ),
}
PLACES = {
    "qkv.kernel": "in_proj_weight",
    "qkv.bias": "in_proj_bias",
    "out.kernel": "out_proj.weight",
    "out.bias": "out_proj.bias",
}


def ours(layer, memory=None, **settings):
    """Output, weights of every head, and gradients: of x, of what is looked at, of parameters."""
    graphdef, params = nnx.split(layer)

    def forward(params, x, memory):
        seen = []

        def showing(q, k, v, mask=None, bias=None):
            seen.append(attention_weights(q, k, mask, bias))
            return attention(q, k, v, mask, bias)

        live = nnx.view(nnx.merge(graphdef, params), attention=showing)
        return live(x, memory=memory, **settings), seen[0]

    @jax.jit
    def forward_and_backward(params, x, memory):
        y, backward, weights = jax.vjp(forward, params, x, memory, has_aux=True)
        return y, weights, backward(jnp.asarray(weighting(y.shape)))

    y, weights, (params, x, memory) = forward_and_backward(params, X, memory)
    return y, weights, [x] if memory is None else [x, memory], by_path(params)


def theirs(layer, memory=None, **settings):
    """The same of PyTorch's layer with the weights of ours, in our order of axes."""
    params = by_path(nnx.state(layer))
    twin = torch.nn.MultiheadAttention(DIM, HEADS, bias="out.bias" in params, batch_first=True)
    twins = dict(twin.named_parameters())
    assert {PLACES[path] for path in params} == set(twins)
    with torch.no_grad():
        for path, value in params.items():
            twins[PLACES[path]].copy_(torch.tensor(np.asarray(value.T)))
    inputs = [torch.tensor(np.asarray(x), requires_grad=True) for x in (X, memory) if x is not None]
    y, weights = twin(inputs[0], inputs[-1], inputs[-1], average_attn_weights=False, **settings)
    y.backward(torch.tensor(weighting(tuple(y.shape))))
    gradients = {path: twins[PLACES[path]].grad.numpy().T for path in params}
    return y, weights, [x.grad for x in inputs], gradients


@pytest.mark.parametrize("case", CASES)
def test_multi_head_attention(case):
    settings, looking, torch_settings = CASES[case]
    layer = randomized(lambda: MultiHeadAttention(DIM, HEADS, rngs=nnx.Rngs(0), **settings))
    actual = ours(layer, **looking)
    expected = theirs(layer, looking.get("memory"), **torch_settings)
    for mine, other in zip(actual, expected, strict=True):
        assert_close(mine, other)


@pytest.mark.parametrize("num_heads", [4, 6, 8])
def test_alibi(num_heads):
    """BLOOM's is `m · s`: `-m · (t - s)` without `-m · t`, which is the same for all keys."""
    bloom = pytest.importorskip("transformers.models.bloom.modeling_bloom")
    theirs = bloom.build_alibi_tensor(torch.ones(1, KEYS), num_heads, torch.float32)
    penalties = alibi(num_heads, KEYS)[0, :, -1]
    assert_close(penalties - penalties[:, :1], theirs[:, 0])

    q, k = random(ROWS, KEYS, num_heads, 8), random(ROWS, KEYS, num_heads, 8, seed=1)
    scores = torch.einsum("btnh,bsnh->bnts", *(torch.tensor(np.asarray(x)) for x in (q, k)))
    later = torch.ones(KEYS, KEYS, dtype=torch.bool).triu(1)
    expected = torch.softmax((scores / 8**0.5 + theirs).masked_fill(later, -torch.inf), -1)
    bias = alibi(num_heads, KEYS)
    assert_close(attention_weights(q, k, Mask(causal=True), bias), expected)
