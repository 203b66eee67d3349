"""Skip-gram with negative sampling in PyTorch, block by block as `train.tasks.word_vectors`."""

import numpy as np
import torch
from torch.nn.functional import logsigmoid


class SkipGram:
    """Two tables, and gradient descent on the rows that a batch of blocks reads."""

    def __init__(self, words: np.ndarray, contexts: np.ndarray, window: int, num_negatives: int):
        self.words, self.contexts = torch.tensor(words), torch.tensor(contexts)
        self.window, self.num_negatives = window, num_negatives

    def update(self, blocks: dict[str, np.ndarray], lr: float) -> tuple[float, int]:
        """One update by the gradient of the sum over all pairs; that sum, and their number."""
        around = torch.from_numpy(blocks["words"]).long()
        middle = around[:, self.window : -self.window]
        others = torch.cat([around, torch.from_numpy(blocks["noise"]).long()], dim=1)
        v = self.words[middle].requires_grad_()
        u = self.contexts[others].requires_grad_()
        near, noise = torch.bmm(v, u.mT).split([around.shape[1], blocks["noise"].shape[1]], dim=2)
        is_pair = self._is_pair(blocks)
        far = -logsigmoid(-noise).mean(-1) * self.num_negatives
        loss = (-logsigmoid(near) * is_pair).sum() + (is_pair.sum(-1) * far).sum()
        loss.backward()
        with torch.no_grad():
            for table, rows, read in ((self.words, middle, v), (self.contexts, others, u)):
                assert read.grad is not None
                table.index_add_(0, rows.flatten(), read.grad.flatten(0, 1), alpha=-lr)
        return loss.item(), int(is_pair.sum())

    def _is_pair(self, blocks: dict[str, np.ndarray]) -> torch.Tensor:
        before, after = (torch.from_numpy(blocks[n])[..., None] for n in ("before", "after"))
        num_words = before.shape[1]
        distance = torch.arange(num_words + 2 * self.window) - self.window
        distance = distance - torch.arange(num_words)[:, None]
        return (distance != 0) & (-before <= distance) & (distance <= after)
