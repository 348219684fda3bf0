"""The three designs of an audit, from the folders of a privacy stage: whom it attacks, and what attacks may see.

* ``pool``, ours: rows of a membership matrix, each distilled anew; some are targets, the others their shadows. Shadows
  of a target are all rows but itself and its twin, which share no image with it and all: with the twin among them,
  counting in how many shadows an image is a member would tell the target's members without any model.
* ``seed``, the setting of Chen et al. 2023: one draw of images is distilled, test images are non-members. The paper
  defines neither its attack nor its non-members; ours are the test images of the same classes, all of them
  (``nonmember_source`` test) and as many of each class as there are members of it (test_balanced). No class may tell
  who is a member: members are left out of test_balanced where classes cannot be matched otherwise, and there are no
  rows of test where classes alone would tell more than chance. Shadows are distillations of other draws. Attacks learn
  from what each said of its own images and of as many others; those that calibrate ask them about the target's
  candidates, of which no shadow has seen any.
* ``one_run``: one distillation of images that were chosen by coins.

Of identical images nobody can tell which was a member. Test images that are identical to a member, and images of a pool
that are there more than once, are no candidates; ``left_out`` on the rows says how many were left out.

Legend: R rows of the membership matrix, T targets (the first row of each of the first pairs), n pool images, q of the
reserve, m of the population, K classes. Nothing is computed here but who is a member of what, which the rows' numbers
say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trainables.attacks import MEMBERSHIP_ATTACKS, Audit, MembershipAttack, Need
from trainables.configs import OriginConfig, PrivacyConfig
from trainables.context import Context
from trainables.data.cache import Split, open_split, pixel_digests
from trainables.data.origins import canary_labels, origin_indices, pool_indices
from trainables.data.pixels import decode, decode_labels, normalise
from trainables.evaluate.intervals import Booleans, Floats, Integers, Row
from trainables.evaluate.privacy.inputs import ShadowOutputs, Shadows, Target
from trainables.evaluate.privacy.roc import auc, null_reach
from trainables.files import CANARY, INIT, NON_MEMBER, OTHER, RESERVE
from trainables.models.network import build
from trainables.payloads import DistilledSet, TrainedModel
from trainables.seeds import derive
from trainables.train import labels_of, predict

Logits = NDArray[np.float32]
Images = NDArray[np.uint8]

ASKED_AT_ONCE = 2048
"""Images of which a shadow is asked between two looks for a request to stop."""
LEARNING_ROWS = 60_000
"""OutputArrays of shadows that attacks learn from, at most: more images per class change nothing but the time."""
NO_SET = "no set is released"
ON_ORIGIN = f"{NO_SET}: the model is trained on the origin itself"
NO_START = "of an undistilled start the audit holds the model, not the images"
ONE_RUN = "one run has no shadows"


@dataclass(frozen=True)
class Evidence:
    """What attacks on logits see of one attacked model."""

    target: Target
    shadows: Shadows | None = None
    outputs: ShadowOutputs | None = None
    """What attacks learn from."""
    with_reserve: tuple[Target, Shadows] | None = None
    """Target and shadows also on images that are never members; None: there are none."""


@dataclass(frozen=True)
class AttackedModel:
    """One attacked model: its candidates, who of them is a member, and what attacks see of it."""

    ids: Integers
    """(n + q,) numbers of the candidates, the same for the same image in every model of an audit."""
    labels: Integers
    """(n + q,) positions; of canaries, the wrong one they are trained with."""
    member: Booleans
    """(n + q,)."""
    role: Integers
    """(n + q,) codes of ``files.ROLES``."""
    released: DistilledSet | None
    """The set it was trained on."""
    evidence: Callable[[], Evidence]
    """Loads what attacks see, which may be large: one model's at a time."""
    row: int | None = None
    """Of the membership matrix."""


@dataclass(frozen=True)
class Design:
    """One audit, of trained models or of their undistilled starts."""

    audit: Audit
    start: bool
    """Whether the models were trained on undistilled starts (``iteration`` 0)."""
    models: list[AttackedModel]
    tests: list[OutputArrays]
    """What each model says of the test images."""
    columns: Row
    """Of all rows about attacks."""
    shadow_columns: Row
    """Of rows about attacks that need shadows."""
    sources: Mapping[str, Booleans | slice | str]
    """``nonmember_source`` -> the candidates it leaves (mask or slice), or why there can be no rows (text)."""
    images: Callable[[Integers], Images]
    """The images (k, C, H, W) of candidates by number."""
    lacks: Mapping[Need, str] = field(default_factory=dict)
    """What attacks may need and there is not -> why; ``{attack}`` stands for its name."""
    truth: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """Details beside the scores, by name."""

    @property
    def base(self) -> Row:
        """Columns that say which audit it is."""
        return {"audit": self.audit, **({"iteration": 0} if self.start else {})}

    @property
    def reserve_size(self) -> int:
        """q: candidates that are never members, the last of each model's."""
        return int((self.models[0].role == RESERVE).sum())

    def asks(self, attack: MembershipAttack) -> bool:
        """Whether an attack is part of the audit. The control is not, of a start: it looks at no model."""
        return self.audit in attack.audits and not (self.start and attack.needs == "truth")


def designs(config: PrivacyConfig, inputs: Mapping[str, Path], context: Context) -> Iterator[Design]:
    """The audits of a point, each of the trained models and then, where there are any, of their starts."""
    split = open_split(config.dataset, "train", context.data, context.cache)
    for audit in config.audit:
        if audit == "one_run":
            yield _one_run(config, inputs, split)
            continue
        if audit == "seed":
            test = open_split(config.dataset, "test", context.data, context.cache)
            # Of both: what is learned from them, and what they say, is kept for the second.
            outputs, unseen = seed_outputs(config, inputs, split.images), UnseenShadows(config, inputs, context)
        for trained_on in ("model", "start"):
            if audit == "seed" and f"seed.{trained_on}" in inputs:
                yield _seed(config, inputs, split, test, outputs, unseen, trained_on)
            elif audit == "pool" and f"row.0.{trained_on}" in inputs:
                yield _pool(config, inputs, split, trained_on)


# --- what models say ---


@dataclass(frozen=True)
class OutputArrays:
    """What one model says of one set of images, as arrays."""

    logits: Logits
    """(n, K)."""
    labels: Integers
    """(n,) positions."""
    ids: Integers
    """(n,) canonical indices in the split's images."""

    def take(self, kept: Booleans) -> OutputArrays:
        """Those of some images (n,)."""
        return OutputArrays(self.logits[kept], self.labels[kept], self.ids[kept])


def load_outputs(folder: Path) -> dict[str, OutputArrays]:
    """What a trained model says, by set of images."""
    return {
        name: OutputArrays(stored.logits.numpy(), stored.labels.numpy(), stored.ids.numpy())
        for name, stored in TrainedModel.load_outputs(folder).items()
    }


def repeated(images: Images) -> Booleans:
    """(n,): images of which an identical one is among them."""
    digests = pixel_digests(images)
    counts = Counter(digests)
    return np.array([counts[digest] > 1 for digest in digests], dtype=np.bool_)


def _left_out(audit: Audit, kept: Booleans) -> Row:
    """The column that says how many candidates (n,) were left out, if any.

    Raises:
        ValueError: If none are left.
    """
    if not kept.any():
        raise ValueError(
            f"privacy, audit {audit}: all {len(kept)} images that could be non-members are identical to other ones; "
            "expected some that are there once. Take the copies out of the data."
        )
    return {} if kept.all() else {"left_out": int((~kept).sum())}


def _released(config: PrivacyConfig, inputs: Mapping[str, Path], whose: str) -> DistilledSet | None:
    """The set behind a model as it would be published: with the labels that its network learned; None: there is none.

    A teacher labels the decoded images, so that they are what is published then. An online one has to be published
    itself; of it, what it says of the images as they are is attacked.
    """
    if f"{whose}.set" not in inputs:
        return None
    found = DistilledSet.load(inputs[f"{whose}.set"])
    if config.teacher is None:
        return found
    factor = found.info["factor"]
    pixels, classes = decode(found.images, factor), decode_labels(found.labels.classes, factor)
    labels = labels_of(TrainedModel.load(inputs[f"{whose}.teacher"]), config.teacher, pixels, classes, "cpu")
    return replace(found, images=pixels, labels=labels, info={**found.info, **labels.info, "factor": 1})


def start_members(
    ids: Integers, member: Booleans, released: DistilledSet | None, left_out: Integers | None = None
) -> Booleans:
    """(n,): candidates that the set started from, or is made of, tiles included; none without a set.

    Every one is a member: anything else would mean that a set was made of images it must not have seen.

    Args:
        ids: (n,) of the candidates.
        member: (n,).
        released: The set.
        left_out: Images that may be members and are no candidates.
    """
    if released is None:
        return np.zeros(len(ids), dtype=np.bool_)
    named = released.indices.numpy()
    strangers = np.setdiff1d(named[named >= 0], ids[member] if left_out is None else [*ids[member], *left_out])
    assert not len(strangers), f"the set starts from images that are no members: {strangers[:10].tolist()}"
    return np.asarray(np.isin(ids, named[named >= 0]))


# --- pool ---


@dataclass(frozen=True)
class Pool:
    """The models of a membership matrix and what they say of its pool."""

    ids: Integers
    """(n,) canonical train indices of the candidates."""
    labels: Integers
    """(n,) positions; of canaries, the wrong one they are trained with."""
    member: Booleans
    """(R, n)."""
    canary: Booleans
    """(n,)."""
    logits: Logits
    """(R, n, K)."""
    reserve: tuple[OutputArrays, ...]
    """Per row; all of the same images, or no row has any."""
    population: tuple[OutputArrays, ...]
    """Likewise."""
    left_out: Integers | None = None
    """Canonical train indices of images of the pool that are no candidates, for they are there more than once."""

    def without_repeated(self, images: Images) -> Pool:
        """The same without images that are more than once in pool, reserve and population.

        Args:
            images: The whole train split.
        """
        first = [outputs[0].ids for outputs in (self.reserve, self.population) if outputs]
        sizes = np.cumsum([len(self.ids), *map(len, first)])
        kept, *others = np.split(~repeated(images[np.concatenate([self.ids, *first])]), sizes[:-1])
        if kept.all() and all(each.all() for each in others):
            return self
        of_reserve = others.pop(0) if self.reserve else None
        of_population = others.pop(0) if self.population else None
        return replace(
            self,
            ids=self.ids[kept],
            labels=self.labels[kept],
            member=self.member[:, kept],
            canary=self.canary[kept],
            logits=self.logits[:, kept],
            reserve=tuple(row.take(of_reserve) for row in self.reserve) if of_reserve is not None else (),
            population=tuple(row.take(of_population) for row in self.population) if of_population is not None else (),
            left_out=self.ids[~kept],
        )

    def target(self, row: int, *, reserve: bool = False) -> tuple[Target, Shadows]:
        """A row as the attacked model, and all rows but it and its twin as shadows.

        Args:
            row: Which.
            reserve: Append the reserve to the candidates.
        """
        assert not reserve or self.reserve
        others = [other for other in range(len(self.logits)) if other // 2 != row // 2]
        labels, member, population = self.labels, self.member[others], self.population
        if reserve:
            labels = np.concatenate([labels, self.reserve[row].labels])
            member = np.pad(member, ((0, 0), (0, len(self.reserve[row].labels))))

        def on_candidates(index: int) -> Floats:
            own = self.logits[index]
            return (np.concatenate([own, self.reserve[index].logits]) if reserve else own).astype(np.float64)

        def on_population(index: int) -> Floats:
            return population[index].logits.astype(np.float64)

        z_labels = population[row].labels if population else None
        target = Target(on_candidates(row), labels, on_population(row) if population else None, z_labels)
        z = np.stack([on_population(index) for index in others]) if population else None
        return target, Shadows(np.stack([on_candidates(index) for index in others]), labels, member, z)

    def evidence(self, row: int) -> Evidence:
        """What attacks see of a row."""
        target, shadows = self.target(row)
        wide = self.target(row, reserve=True) if self.reserve else None
        return Evidence(target, shadows, learning_outputs(shadows), wide)


def row_origin(config: PrivacyConfig, row: int) -> OriginConfig:
    """The origin of a row of the point's membership matrix."""
    own = config.origin
    return OriginConfig(
        kind="pool", per_class=own.per_class, draw=own.draw, row=row, canaries=config.canaries, classes=own.classes
    )


def load_pool(config: PrivacyConfig, inputs: Mapping[str, Path], trained_on: str, train_labels: Integers) -> Pool:
    """All rows of a membership matrix.

    Args:
        config: The point and the number of rows.
        inputs: Folders by role.
        trained_on: ``model``, or ``start`` for models trained on the undistilled starts.
        train_labels: Of the whole train split.
    """
    rows = [load_outputs(inputs[f"row.{row}.{trained_on}"]) for row in range(config.rows)]
    first = rows[0]["pool"]
    for split in ("pool", "population", "reserve"):
        for row in rows:
            assert (split in row) == (split in rows[0]), f"some rows were not asked about the {split}"
            same = split not in row or np.array_equal(row[split].ids, rows[0][split].ids)
            assert same, f"rows were asked about different images of the {split}"
    assert np.array_equal(first.ids, pool_indices(row_origin(config, 0), train_labels)), "another pool"
    held = [set(rows[0][split].ids.tolist()) for split in ("pool", "population", "reserve") if split in rows[0]]
    assert len(set().union(*held)) == sum(map(len, held)), "population, reserve and pool overlap"
    return Pool(
        ids=first.ids,
        labels=first.labels,
        member=np.stack(
            [np.isin(first.ids, origin_indices(row_origin(config, row), train_labels)) for row in range(config.rows)]
        ),
        canary=np.isin(first.ids, list(canary_labels(row_origin(config, 0), train_labels))),
        logits=np.stack([row["pool"].logits for row in rows]),
        reserve=tuple(row["reserve"] for row in rows if "reserve" in row),
        population=tuple(row["population"] for row in rows if "population" in row),
    )


def _pool(config: PrivacyConfig, inputs: Mapping[str, Path], split: Split, trained_on: str) -> Design:
    start = trained_on == "start"
    whole = load_pool(config, inputs, trained_on, split.labels)
    pool = whole.without_repeated(split.images)
    left_out = _left_out("pool", np.isin(whole.ids, pool.ids))
    targets = [2 * index for index in range(config.targets)]
    sets = [_released(config, inputs, f"row.{row}") for row in targets]
    models = [_row_model(pool, row, released) for row, released in zip(targets, sets, strict=True)]
    lacks: dict[Need, str] = {}
    if start:
        lacks["distilled_set"] = NO_START
    elif None in sets:
        lacks["distilled_set"] = ON_ORIGIN
    base: Row = {"audit": "pool", **({"iteration": 0} if start else {})}
    return Design(
        "pool",
        start,
        models,
        [load_outputs(inputs[f"row.{row}.{trained_on}"])["test"] for row in targets],
        {**base, **left_out, "split": "pool", "nonmember_source": "pool"},
        _shadow_columns(config, config.rows - 2),
        {"pool": slice(None)},
        lambda ids: np.asarray(split.images[ids]),
        lacks,
        {} if start else _pool_truth(pool, models),
    )


def _row_model(pool: Pool, row: int, released: DistilledSet | None) -> AttackedModel:
    member = pool.member[row]
    role = np.where(member, OTHER, NON_MEMBER)
    role[start_members(pool.ids, member, released, pool.left_out)] = INIT
    role[pool.canary] = CANARY
    ids, labels = pool.ids, pool.labels
    if pool.reserve:
        ids = np.concatenate([ids, pool.reserve[row].ids])
        labels = np.concatenate([labels, pool.reserve[row].labels])
    extra = (0, len(ids) - len(pool.ids))
    member, role = np.pad(member, extra), np.pad(role, extra, constant_values=RESERVE)
    return AttackedModel(ids, labels, member, role, released, lambda: pool.evidence(row), row)


def _pool_truth(pool: Pool, models: list[AttackedModel]) -> dict[str, NDArray[Any]]:
    count = len(pool.ids)
    truth: dict[str, NDArray[Any]] = {
        "member": pool.member,
        "example_id": pool.ids,
        "label": pool.labels,
        "target_row": np.array([model.row for model in models]),
        "role": np.stack([model.role[:count] for model in models]).astype(np.uint8),
    }
    return {**truth, "reserve_id": pool.reserve[0].ids} if pool.reserve else truth


# --- seed ---


def seed_outputs(config: PrivacyConfig, inputs: Mapping[str, Path], images: Images) -> ShadowOutputs | None:
    """What attacks learn from: each shadow on its own block, as members, and on the next, as others.

    As of the target, others that are identical to a member are left out.

    Args:
        images: Of the whole train split.

    Returns:
        None without shadows.
    """
    parts = []
    for block in range(1, config.shadows + 1):
        by_split = load_outputs(inputs[f"shadow.{block}.model"])
        inside, outside = by_split["origin"], by_split["other"]
        for said, member in ((inside, True), (outside.take(_unlike(inside.ids, outside.ids, images)), False)):
            kept = spread(said.labels, LEARNING_ROWS // (2 * config.shadows), block)
            logits, labels = said.logits[kept], said.labels[kept]
            parts.append((logits, labels, np.full(len(labels), member), np.full(len(labels), block)))
    return ShadowOutputs(*map(np.concatenate, zip(*parts, strict=True))) if parts else None


def _unlike(inside: Integers, outside: Integers, images: Images, others: Images | None = None) -> Booleans:
    """(n,): which of the images ``outside``, of ``others`` (None: the same split), are identical to none ``inside``."""
    of_members = set(pixel_digests(images[inside]))
    digests = pixel_digests((images if others is None else others)[outside])
    return np.array([digest not in of_members for digest in digests], dtype=np.bool_)


class UnseenShadows:
    """The shadows of the audit ``seed``, asked about candidates that none of them was trained on.

    All candidates take the same way through the same network here, also those that a shadow was asked about before:
    what differs in rounding between two devices would tell members from others.
    """

    def __init__(self, config: PrivacyConfig, inputs: Mapping[str, Path], context: Context) -> None:
        self._folders = [inputs[f"shadow.{block}.model"] for block in range(1, config.shadows + 1)]
        self._wanted = any(MEMBERSHIP_ATTACKS[name].needs == "shadows" for name in config.attacks)
        self._context = context
        self._said: tuple[Integers, Logits] | None = None

    def about(self, ids: Integers, labels: Integers, images: Callable[[Integers], Images]) -> Shadows | None:
        """What they say of candidates (n,); None where there are none, or no attack that asks."""
        if not self._folders or not self._wanted:
            return None
        if self._said is None or not np.array_equal(self._said[0], ids):
            shown = images(ids)
            self._said = ids, np.stack([self._logits(folder, shown) for folder in self._folders])
        return Shadows(
            self._said[1].astype(np.float64), labels, np.zeros((len(self._folders), len(ids)), dtype=np.bool_)
        )

    def _logits(self, folder: Path, images: Images) -> Logits:
        context = self._context
        model = TrainedModel.load(folder)
        network = build(model.network, "privacy", device=context.device)
        network.load_state_dict(model.state)
        parts = []
        for start in range(0, len(images), ASKED_AT_ONCE):
            context.poll()
            pixels = torch.from_numpy(images[start : start + ASKED_AT_ONCE]).to(context.device).float() / 255
            shown = normalise(pixels, model.mean, model.std)
            if model.whitening is not None:
                shown = model.whitening.whiten(shown, model.mean, model.std)
            parts.append(predict(network, shown).cpu().numpy())
        return np.concatenate(parts)


def _seed(
    config: PrivacyConfig,
    inputs: Mapping[str, Path],
    split: Split,
    test: Split,
    outputs: ShadowOutputs | None,
    unseen: UnseenShadows,
    trained_on: str,
) -> Design:
    start = trained_on == "start"
    by_split = load_outputs(inputs[f"seed.{trained_on}"])
    inside, outside = by_split["origin"], by_split["test"]
    kept = _unlike(inside.ids, outside.ids, split.images, test.images)
    left_out, outside = _left_out("seed", kept), outside.take(kept)
    count, first_test_id = len(inside.ids), len(split.labels)
    released = _released(config, inputs, "seed")
    member = np.arange(count + len(outside.ids)) < count
    role = np.where(member, OTHER, NON_MEMBER)
    role[:count][start_members(inside.ids, np.ones(count, dtype=np.bool_), released)] = INIT
    labels = np.concatenate([inside.labels, outside.labels])
    # Test images have numbers of their own, which do not meet those of the train split.
    ids = np.concatenate([inside.ids, outside.ids + first_test_id])
    chosen = balanced(inside.labels, outside.labels, config.origin)
    problem = class_problem(inside.labels, outside.labels)
    target = Target(np.concatenate([inside.logits, outside.logits]).astype(np.float64), labels)

    def images(wanted: Integers) -> Images:
        from_test = wanted >= first_test_id
        shown = np.empty((len(wanted), *split.images.shape[1:]), dtype=np.uint8)
        shown[~from_test] = split.images[wanted[~from_test]]
        shown[from_test] = test.images[wanted[from_test] - first_test_id]
        return shown

    lacks: dict[Need, str] = {}
    if start:
        lacks["distilled_set"] = NO_START
    elif released is None:
        lacks["distilled_set"] = ON_ORIGIN

    def evidence() -> Evidence:
        return Evidence(target, unseen.about(ids, labels, images), outputs)

    truth = {
        "example_id": np.concatenate([inside.ids, outside.ids]),
        "from_test": ~member,
        "is_member": member,
        "label": labels,
        "role": role.astype(np.uint8),
        "balanced": chosen,
    }
    return Design(
        "seed",
        start,
        [AttackedModel(ids, labels, member, role, released, evidence)],
        [by_split["test"]],
        {"audit": "seed", **({"iteration": 0} if start else {}), **left_out},
        # Shadows of a start would be starts themselves; those of whole distillations are all there are.
        _shadow_columns(config, config.shadows, "unequal" if start else "full"),
        {"test_balanced": chosen, "test": problem or np.ones_like(member)},
        images,
        lacks,
        {} if start else truth,
    )


def balanced(inside: Integers, outside: Integers, origin: OriginConfig) -> Booleans:
    """The candidates of ``test_balanced``, with members and others in equal shares of each class.

    As many test images of each class as there are members of it, or all. All members stay where every class then has
    the same share of either side, as after a draw; elsewhere as many of each class stay as there are test images.

    Args:
        inside: (m,) positions of the members' classes.
        outside: (n,) of the test images'.
        origin: Of the members; its numbers choose who stays.

    Returns:
        (m + n,): members, then test images.
    """
    members, others = _counts(inside, outside)
    each = np.minimum(members, others)
    counts = dict(enumerate(each.tolist()))
    numbers = (origin.per_class or 0, origin.draw or 0)
    chosen = np.zeros(len(inside) + len(outside), dtype=np.bool_)
    chosen[len(inside) + some_of_each(outside, counts, *numbers)] = True
    alike = np.array_equal(members * each.sum(), each * members.sum())
    chosen[np.arange(len(inside)) if alike else some_of_each(inside, counts, "members", *numbers)] = True
    return chosen


def class_problem(inside: Integers, outside: Integers) -> str | None:
    """Why members cannot be told from all test images fairly: their classes are enough. None: those say no more than
    chance does.

    Args:
        inside: (m,) positions of the members' classes.
        outside: (n,) of the test images'.
    """
    members, others = _counts(inside, outside)
    share_in, share_out = members / members.sum(), others / others.sum()
    likely = share_in / np.maximum(share_in + share_out, np.finfo(np.float64).tiny)  # the best score there is
    member = np.arange(len(inside) + len(outside)) < len(inside)
    alone = auc(likely[np.concatenate([inside, outside])], member)
    top = 0.5 + null_reach(len(inside), len(outside))
    if alone <= top:
        return None
    return (
        f"members and test images are of other classes: the class alone gives an AUC of {alone:.3f}, where chance "
        f"gives {top:.3f} at most; test_balanced has equally many of each class"
    )


def _counts(inside: Integers, outside: Integers) -> tuple[Integers, Integers]:
    """(K,) of each side."""
    classes = int(max(inside.max(), outside.max())) + 1
    return np.bincount(inside, minlength=classes), np.bincount(outside, minlength=classes)


# --- one run ---


def _one_run(config: PrivacyConfig, inputs: Mapping[str, Path], split: Split) -> Design:
    by_split = load_outputs(inputs["coin.model"])
    kept = ~repeated(split.images[by_split["pool"].ids])
    left_out, pool = _left_out("one_run", kept), by_split["pool"].take(kept)
    origin = row_origin(config, 0).model_copy(update={"kind": "coin"})
    coin = np.isin(pool.ids, origin_indices(origin, split.labels))
    released = _released(config, inputs, "coin")
    target = Target(pool.logits.astype(np.float64), pool.labels)
    role = np.where(coin, OTHER, NON_MEMBER)
    lacks: dict[Need, str] = {"shadow_outputs": ONE_RUN, "shadows": ONE_RUN}
    if released is None:
        lacks["distilled_set"] = NO_SET
    return Design(
        "one_run",
        False,
        [AttackedModel(pool.ids, pool.labels, coin, role, released, lambda: Evidence(target))],
        [by_split["test"]],
        {"audit": "one_run", **left_out, "split": "pool", "nonmember_source": "pool", "prior": 0.5},
        {},
        {"pool": slice(None)},
        lambda ids: np.asarray(split.images[ids]),
        lacks,
        {"example_id": pool.ids, "label": pool.labels, "is_member": coin},
    )


# --- shadows, and random images ---


def _shadow_columns(config: PrivacyConfig, num: int, fidelity: str = "full") -> Row:
    # What is trained on the origin itself has shadows that are, too; their likes for a distilled target would be weak.
    kind = "direct" if config.method == "full" else "distilled"
    return {"shadow_kind": kind, "shadow_fidelity": fidelity, "n_shadows": num}


def learning_outputs(shadows: Shadows) -> ShadowOutputs:
    """What attacks of the audit ``pool`` learn from: outputs of all shadows on the candidates, or on enough of them."""
    kept = spread(shadows.labels, max(1, LEARNING_ROWS // shadows.num), 0)
    chosen = np.zeros(len(shadows.labels), dtype=np.bool_)
    chosen[kept] = True
    return shadows.rows(chosen)


def spread(labels: Integers, count: int, *numbers: int) -> Integers:
    """Positions of about ``count`` random images, equally many of each class, ascending; all where there are fewer."""
    classes = np.unique(labels).tolist()
    return some_of_each(labels, dict.fromkeys(classes, max(1, count // len(classes))), *numbers)


def some_of_each(labels: Integers, counts: Mapping[int, int], *parts: int | str) -> Integers:
    """Positions of random images, so many of each class, ascending; all where there are fewer.

    Args:
        labels: (n,).
        counts: By class; none of those that are left out.
        parts: What the random numbers are for.
    """
    chosen = [np.empty(0, dtype=np.int64)]
    for label, count in counts.items():
        own = np.flatnonzero(labels == label)
        rng = np.random.default_rng(derive("privacy", "spread", *parts, label))
        chosen.append(own if len(own) <= count else rng.choice(own, count, replace=False))
    return np.sort(np.concatenate(chosen)).astype(np.int64)
