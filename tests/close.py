"""The one comparison that every numerical test uses, at stated tolerances."""

from typing import Any, Literal

import jax
import numpy as np

TOLERANCES = {"leaf": 1e-5, "composite": 1e-4, "bf16": 2e-2}
"""Relative error allowed: one operation, a composition of many, or bfloat16 arithmetic."""


def assert_close(
    actual: Any, expected: Any, *, kind: Literal["leaf", "composite", "bf16"] = "leaf"
) -> None:
    """Assert that two arrays, or every leaf of two equal trees, agree.

    Two arrays agree when `‖actual - expected‖ <= tolerance · ‖expected‖` (or the tolerance itself,
    where expected is all zero) and their infinities stand in the same places. Arrays may be of JAX,
    NumPy or PyTorch, the expected one also lists of numbers; trees must have the same paths.
    """
    if hasattr(actual, "shape"):
        arrays = _as_float64(actual), _as_float64(expected)
        return _assert_arrays_close(*arrays, TOLERANCES[kind], kind)
    expected_leaves = dict(_leaves(expected))
    actual_leaves = dict(_leaves(actual))
    assert actual_leaves.keys() == expected_leaves.keys(), (
        f"different trees: {sorted(actual_leaves)} and {sorted(expected_leaves)}"
    )
    for path, want in expected_leaves.items():
        _assert_arrays_close(actual_leaves[path], want, TOLERANCES[kind], f"{path} ({kind})")


def _leaves(tree: Any) -> list[tuple[str, np.ndarray]]:
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [(jax.tree_util.keystr(path), _as_float64(leaf)) for path, leaf in flat]


def _as_float64(leaf: Any) -> np.ndarray:
    if hasattr(leaf, "detach"):  # a PyTorch tensor, perhaps one that has a gradient
        leaf = leaf.detach().double().numpy()
    return np.asarray(leaf, dtype=np.float64)


def _assert_arrays_close(
    actual: np.ndarray, expected: np.ndarray, tolerance: float, where: str
) -> None:
    assert actual.shape == expected.shape, f"{where}: shape {actual.shape}, not {expected.shape}"
    infinite = np.isinf(expected)
    assert np.array_equal(actual[infinite], expected[infinite]), f"{where}: infinities differ"
    error = np.linalg.norm(actual[~infinite] - expected[~infinite])
    norm = np.linalg.norm(expected[~infinite])
    relative = error / norm if norm > 0 else error
    # Written so that NaN fails.
    assert relative <= tolerance, f"{where}: relative error {relative:.2e} > {tolerance:.0e}"
