"""What one model's logits say about one image: the statistics that attacks on membership start from.

All in float64, from logits, and exact where probabilities round to 0 or 1: nets that were trained for thousands of
epochs on few images put the others below 1e-16, and ties there would hide who was a member.
Logits (..., K), labels (...); the result has the shape of the labels. Higher: more likely a member.
"""

from __future__ import annotations

import numpy as np
from scipy import special

from trainables.evaluate.intervals import Floats, Integers


def log_odds(logits: Floats) -> Floats:
    """log p_j - log(1 - p_j) of every class (..., K): z_j - logsumexp of the others.

    The log-sum over the others comes from the log-sum over all, which loses nothing when p_j <= 1/2; the largest logit
    gets its own.
    """
    logits = np.asarray(logits, dtype=np.float64)
    top = np.argmax(logits, axis=-1)[..., None]
    whole = special.logsumexp(logits, axis=-1, keepdims=True)
    others = logits.copy()
    np.put_along_axis(others, top, -np.inf, axis=-1)
    rest = special.logsumexp(others, axis=-1, keepdims=True)
    shares = np.minimum(np.exp(logits - whole), 0.5)
    odds = logits - whole - np.log1p(-shares)
    np.put_along_axis(odds, top, np.take_along_axis(logits, top, axis=-1) - rest, axis=-1)
    return np.asarray(odds, dtype=np.float64)


def phi(logits: Floats, labels: Integers) -> Floats:
    """log p_y - log(1 - p_y) = z_y - logsumexp_{j != y} z_j (Carlini et al. 2022, section V.B)."""
    odds = np.take_along_axis(log_odds(logits), np.asarray(labels)[..., None], axis=-1)
    return np.asarray(odds[..., 0], dtype=np.float64)


def log_confidence(logits: Floats, labels: Integers) -> Floats:
    """log p_y, the negative cross-entropy (Yeom et al. 2018). Below 0 even where p_y rounds to 1; ranks as ``phi``."""
    return np.asarray(-np.logaddexp(0.0, -phi(logits, labels)), dtype=np.float64)


def max_log_odds(logits: Floats, labels: Integers) -> Floats:
    """Log-odds of the largest probability (Salem et al. 2019): ranks as max_j p_j does, without its ties near 1."""
    return np.asarray(log_odds(logits).max(axis=-1), dtype=np.float64)


def negative_entropy(logits: Floats, labels: Integers) -> Floats:
    """sum_j p_j log p_j."""
    log_shares = -np.logaddexp(0.0, -log_odds(logits))
    return np.asarray((np.exp(log_shares) * log_shares).sum(axis=-1), dtype=np.float64)


def negative_modified_entropy(logits: Floats, labels: Integers) -> Floats:
    """(1 - p_y) log p_y + sum_{j != y} p_j log(1 - p_j) (Song & Mittal 2021, equation 8, with the sign turned)."""
    odds = log_odds(logits)
    at_label = np.asarray(labels)[..., None]
    log_shares, log_rests = -np.logaddexp(0.0, -odds), -np.logaddexp(0.0, odds)
    terms = np.exp(log_shares) * log_rests
    np.put_along_axis(terms, at_label, 0.0, axis=-1)
    own = np.exp(np.take_along_axis(log_rests, at_label, axis=-1)) * np.take_along_axis(log_shares, at_label, axis=-1)
    return np.asarray(terms.sum(axis=-1) + own[..., 0], dtype=np.float64)


def correctness(logits: Floats, labels: Integers) -> Floats:
    """1 where the largest logit is the label's, else 0: the gap between training and test accuracy as an attack."""
    return np.asarray(np.argmax(logits, axis=-1) == labels, dtype=np.float64)
