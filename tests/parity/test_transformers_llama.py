"""Llama and its experts against `transformers`: outputs and the gradient of every parameter."""

import dataclasses

import numpy as np
import pytest
from flax import nnx

from tests.close import assert_close
from tests.zoo.compare import by_path, randomized, run_on_tokens, weighting
from zoo.models.llama import Llama, LlamaConfig

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

CONFIG = LlamaConfig(
    vocab_size=31, context=12, num_layers=2, num_heads=4, num_kv_heads=2, dim=16, hidden_dim=24,
    rope_base=5000.0, epsilon=1e-4,
)  # fmt: skip
TOKENS = np.random.default_rng(0).integers(0, 31, (3, 12)).astype(np.int32)
PLACES = {
    "tokens.table": "model.embed_tokens.weight",
    "norm.scale": "model.norm.weight",
    "output.kernel": "lm_head.weight",
    "norm1.scale": "input_layernorm.weight",
    "norm2.scale": "post_attention_layernorm.weight",
    "attention.out.kernel": "self_attn.o_proj.weight",
    "mlp.down.kernel": "mlp.down_proj.weight",
    "mlp.router.kernel": "mlp.gate.weight",
    "mlp.up": "mlp.experts.gate_up_proj",
    "mlp.down": "mlp.experts.down_proj",
}


def as_twin(arrays: dict) -> dict[str, np.ndarray]:
    """Our arrays by the names and in the layout of `transformers`."""
    twin, width = {}, CONFIG.dim // CONFIG.num_heads
    for path, array in arrays.items():
        array = np.asarray(array)
        prefix = ""
        if path.startswith("blocks.blocks."):
            number, path = path.removeprefix("blocks.blocks.").split(".", 1)
            prefix = f"model.layers.{number}."
        if not path.endswith("table"):
            array = np.swapaxes(array, 0, -1) if array.ndim < 3 else np.swapaxes(array, 1, 2)
        if path == "attention.qkv.kernel":
            q, kv = CONFIG.num_heads * width, CONFIG.num_kv_heads * width
            for name, part in zip("qkv", np.split(array, [q, q + kv]), strict=True):
                if name == "q":  # ours has those heads apart that share a key head
                    heads = part.reshape(-1, CONFIG.num_kv_heads, width, CONFIG.dim)
                    part = heads.swapaxes(0, 1).reshape(part.shape)
                twin[f"{prefix}self_attn.{name}_proj.weight"] = part
        elif path == "mlp.up.kernel":
            for name, part in zip(("gate", "up"), np.split(array, 2), strict=True):
                twin[f"{prefix}mlp.{name}_proj.weight"] = part
        else:
            twin[prefix + PLACES[path]] = array
    return twin


def both(config: LlamaConfig, twin_name: str, **settings):
    """Our model and its twin with the same parameters."""
    model = randomized(lambda: Llama(config, rngs=nnx.Rngs(0)))
    twin = getattr(transformers, f"{twin_name}ForCausalLM")(
        getattr(transformers, f"{twin_name}Config")(
            vocab_size=31, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=12,
            rms_norm_eps=config.epsilon,
            rope_parameters={"rope_type": "default", "rope_theta": config.rope_base},
            tie_word_embeddings=config.tie_embeddings, **settings,
        )
    ).eval()  # fmt: skip
    ours, parameters = as_twin(by_path(nnx.state(model))), dict(twin.named_parameters())
    assert ours.keys() == parameters.keys()
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(torch.tensor(ours[name]))
    return model, twin


def compare_gradients(gradients: dict, twin) -> None:
    wanted = {name: p.grad for name, p in twin.named_parameters()}
    assert_close(as_twin(gradients), wanted, kind="composite")


@pytest.mark.parametrize("tied", [False, True])
def test_llama(tied):
    model, twin = both(dataclasses.replace(CONFIG, tie_embeddings=tied), "Llama")
    logits, gradients = run_on_tokens(model, TOKENS)
    expected = twin(torch.tensor(TOKENS).long()).logits
    expected.backward(torch.tensor(weighting(tuple(expected.shape))))
    assert_close(logits, expected, kind="composite")
    compare_gradients(gradients, twin)


class WithLoss(nnx.Module):
    """Logits with the auxiliary loss added to each, so that both have gradients."""

    def __init__(self, model: Llama):
        self.model = model

    def __call__(self, tokens):
        logits, loss = self.model.with_auxiliary(tokens)
        return logits + 10 * loss


def test_mixtral():
    config = dataclasses.replace(CONFIG, num_experts=4, experts_per_token=2)
    model, twin = both(config, "Mixtral", num_local_experts=4, num_experts_per_tok=2)
    output, gradients = run_on_tokens(WithLoss(model), TOKENS)
    gradients = {path.removeprefix("model."): array for path, array in gradients.items()}

    expected = twin(torch.tensor(TOKENS).long(), output_router_logits=True)
    # Of each layer by itself, as in the paper; `transformers` takes one product for all layers.
    balance = transformers.models.mixtral.modeling_mixtral.load_balancing_loss_func
    losses = [balance((logits,), num_experts=4, top_k=2) for logits in expected.router_logits]
    expected = expected.logits + 10 * sum(losses) / 2
    expected.backward(torch.tensor(weighting(tuple(expected.shape))))
    assert_close(output, expected, kind="composite")
    compare_gradients(gradients, twin)
