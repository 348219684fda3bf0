"""The stage ``privacy``: how well membership in the origin of one point can be told, by audit and attack.

``seed`` (``audit_seed.py``) is the paper's setting, ``pool`` (``audit_pool.py``) ours; ``one_run`` is below. No text
here says that anything is private: rows say which attack reached what.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from trainables.configs import PrivacyConfig
from trainables.context import Context
from trainables.data.cache import Split, open_split
from trainables.data.origins import origin_indices
from trainables.evaluate.privacy.attacks import NEEDS, Scored, Target, score, threat_of
from trainables.evaluate.privacy.audit_pool import audit_pool
from trainables.evaluate.privacy.audit_seed import audit_seed
from trainables.evaluate.privacy.findings import Findings, accuracy_rows, parts_of, unfit_rows
from trainables.evaluate.privacy.one_run import one_run_rows
from trainables.evaluate.privacy.release import nearness
from trainables.evaluate.privacy.signals import asked, row_origin
from trainables.payloads import DistilledSet, Metrics


def evaluate_privacy(config: PrivacyConfig, inputs: Mapping[str, Path], context: Context) -> Metrics:
    """All rows of one point, and scores example by example.

    An audit that the data are too small for, and an attack that lacks what it needs, give one row without a value, with
    ``flag`` not_applicable and the ``reason``. Rows with ``iteration`` 0 are about models trained on the undistilled
    start.

    Details are named ``AUDIT.WHAT``: ``pool.member`` (R, n), ``pool.role`` (T, n) codes of ``roles.ROLES``,
    ``pool.scores.ATTACK`` (T, n), ``pool.reserve_scores.ATTACK`` (T, q), ``seed.scores.ATTACK`` (n,), with
    ``example_id``, ``label`` and so on beside them; ``.start`` after the audit for iteration 0. Example ids are
    canonical indices in the train split; in ``seed``, of the split that ``seed.from_test`` names.

    Args:
        config: The point, the audits, and how much of each.
        inputs: Folders by role; see ``PrivacyConfig``.
        context: Where the data are; polled between attacks.

    Raises:
        ValueError: The data are missing, broken or others than planned, or a model's logits are not finite.
        Interrupted: A stop was asked for.
    """
    split = open_split(config.dataset, "train", context.data, context.cache)
    found = Findings()
    for audit in config.audit:
        if audit == "seed":
            test = open_split(config.dataset, "test", context.data, context.cache)
            audit_seed(config, inputs, context, split, test, found)
        elif audit == "pool":
            audit_pool(config, inputs, context, split, found)
        else:
            _audit_one_run(config, inputs, context, split, found)
    for name, reason in sorted(config.unfit.items()):
        found.rows += unfit_rows(name, reason, {})
    return Metrics(found.rows, found.details)


def _audit_one_run(
    config: PrivacyConfig, inputs: Mapping[str, Path], context: Context, split: Split, found: Findings
) -> None:
    """A lower bound on epsilon from one distillation of images chosen by coins, for each attack without shadows."""
    said = asked(inputs["coin.model"])
    pool, origin = said["pool"], row_origin(config, 0).model_copy(update={"kind": "coin"})
    coin = np.isin(pool.ids, origin_indices(origin, split.labels))
    target = Target(pool.logits.astype(np.float64), pool.labels)
    released = DistilledSet.load(inputs["coin.set"]) if "coin.set" in inputs else None
    base = {"audit": "one_run", "split": "pool", "nonmember_source": "pool", "prior": 0.5}
    parts = parts_of(config, "one_run")
    found.rows += accuracy_rows([said["test"]], {"audit": "one_run"})
    for name, column in (("example_id", pool.ids), ("label", pool.labels), ("is_member", coin)):
        found.keep(f"one_run.{name}", column)
    for attack in config.attacks:
        context.poll()
        columns = {**base, "attack": attack, "threat_model": threat_of(attack)}
        if NEEDS[attack] == "nothing":
            variants = {"": Scored(score(attack, target).values)}
        elif attack == "data_release" and released is not None:
            (near,) = nearness(split.images[pool.ids], pool.labels, [released], config.dataset, context.poll)
            variants = near.variants()
        elif attack == "blind":
            continue  # the coins are ours: no two distributions to tell apart
        else:
            reason = "no set is released" if attack == "data_release" else "one run has no shadows"
            found.rows += unfit_rows("one_run", reason, columns)
            continue
        for variant, scored in variants.items():
            found.keep(f"one_run.scores.{attack}{variant}", scored.values)
            found.rows += one_run_rows(scored.values, coin, seed_parts=parts, base={**columns, **scored.settings})
