"""Classifiers of texts: embedded tokens, pooled to one vector a text."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hpo.config.trial_config import TrialConfig
from hpo.errors import ConfigError

__all__ = ["TextClassifier", "text_classifier"]

PADDING = 0  # the code behind the end of a text


class TextClassifier(nn.Module):
    """Classifier of token ids (n, length), in which 0 is no token.

    `mean` is the mean of the tokens' vectors (Joulin et al., "Bag of Tricks for Efficient Text Classification", 2016);
    `attention` their mean weighted by a learned score of each (Yang et al., "Hierarchical Attention Networks for
    Document Classification", 2016); `gru` the last state of a gated recurrent unit that reads them in order (Cho et
    al., 2014). A text without tokens is the vector 0, and under `gru` the state before the first.
    """

    def __init__(self, config: TrialConfig, vocabulary: int, outputs: int) -> None:
        super().__init__()
        size, self.pooling = config.token_embedding_size, config.pooling
        self.embedding = nn.Embedding(vocabulary, size, padding_idx=PADDING)
        nn.init.normal_(self.embedding.weight, std=size**-0.5)
        with torch.no_grad():
            self.embedding.weight[PADDING] = 0
        self.dropout = nn.Dropout(config.dropout)
        if self.pooling == "attention":
            self.score = nn.Sequential(nn.Linear(size, size), nn.Tanh(), nn.Linear(size, 1, bias=False))
        elif self.pooling == "gru":
            self.gru = nn.GRU(size, config.gru_size, batch_first=True)
        self.output = nn.Linear(config.gru_size if self.pooling == "gru" else size, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return outputs (n, outputs) for token ids x (n, length)."""
        present = x != PADDING
        places = torch.arange(1, x.shape[1] + 1, device=x.device)
        lengths = (present * places).amax(1)
        if not torch.compiler.is_exporting():  # what is padding in all texts changes nothing
            longest = max(1, int(lengths.max()))
            x, present = x[:, :longest], present[:, :longest]
        vectors = self.dropout(self.embedding(x))
        outputs: Tensor = self.output(self.dropout(self._pool(vectors, present, lengths)))
        return outputs

    def _pool(self, vectors: Tensor, present: Tensor, lengths: Tensor) -> Tensor:
        """Return one vector a text, (n, size), of its tokens' (n, length, size)."""
        if self.pooling == "gru":
            states, _ = self.gru(vectors)
            last = (lengths - 1).clamp(min=0).view(-1, 1, 1).expand(-1, 1, states.shape[2])
            pooled: Tensor = states.gather(1, last).squeeze(1) * (lengths > 0).unsqueeze(1)
            return pooled
        weights = present.to(vectors.dtype)
        if self.pooling == "attention":
            scores = self.score(vectors).squeeze(2).masked_fill(~present, -torch.inf)
            # Where there is no token all scores are -inf, and their softmax is NaN.
            weights = torch.softmax(scores.masked_fill(~present.any(1, keepdim=True), 0.0), 1) * weights
        else:
            weights = weights / weights.sum(1, keepdim=True).clamp(min=1)
        return (vectors * weights.unsqueeze(2)).sum(1)


def text_classifier(config: TrialConfig, shape: tuple[int, ...], classes: int) -> nn.Module:
    """Build a classifier of texts; see `TextClassifier`.

    Raises:
        ConfigError, DataError: the samples are no sequences of codes, or it is not known how many codes there are.
    """
    categories = getattr(shape, "categories", ())
    if len(shape) != 1 or categories:
        what = "a table" if categories else f"of shape {tuple(shape)}"
        raise ConfigError(
            f"model = 'text_classifier': needs token ids, one sequence a sample, but samples are {what}; name the "
            'column of texts: dataset = { path = "FILE", label = "COLUMN", text = "COLUMN" }'
        )
    vocabulary = getattr(shape, "vocabulary", None)
    if vocabulary is None:
        raise ConfigError(
            "model = 'text_classifier': it is not known how many different tokens there are; give `vocabulary` in "
            "hpo.Dataset"
        )
    return TextClassifier(config, vocabulary, classes)
