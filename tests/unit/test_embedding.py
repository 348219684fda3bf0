"""Numbers about a set in feature space: their meaning on sets of known quality, their formulas done another way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.manifold import trustworthiness
from sklearn.neighbors import NearestNeighbors
from support import FakeContext, digits_config
from torch import Tensor

from trainables import seeds
from trainables.configs import EmbeddingConfig, NetworkConfig, OriginConfig, TsneConfig
from trainables.data.origins import load_origin
from trainables.data.pixels import decode, denormalise, fit_whitening, normalise
from trainables.evaluate import embedding
from trainables.evaluate.embedding import Real, centroid_distance, embed, embedding_rows, joint_tsne, mmd
from trainables.labels import HardLabels
from trainables.models.network import build
from trainables.payloads import DistilledSet, Embedding, TrainedModel

CLASSES = (1, 3, 8, 9)
EACH = 60
NEIGHBOURS = 8


class Digits:
    """Images of four digits, and an encoder that has never been trained: its features tell digits apart well enough."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.dataset = digits_config()
        self.context = FakeContext(folder)
        self.context.cache = cache
        network = NetworkConfig(
            architecture="convnet3", norm="instance", width=16, depth=1, image_size=8, channels=1, num_classes=4
        )
        state = build(network, "a test").state_dict()
        # Constants of its own: not those that the data are normalised with.
        self.encoder = TrainedModel(state, network, (0.25,), (0.5,))
        origin = load_origin(
            self.dataset, OriginConfig(kind="draw", per_class=120, draw=0, classes=CLASSES), folder, cache, "cpu"
        )
        self.pixels = denormalise(origin.images, self.dataset.mean, self.dataset.std)
        self.labels, self.indices = origin.labels, origin.indices

    def config(self, **other: Any) -> EmbeddingConfig:
        values = {"real_per_class": EACH, "neighbours": NEIGHBOURS, **other}
        return EmbeddingConfig(dataset=self.dataset, classes=CLASSES, **values)

    def rows_of(self, each: int, offset: int = 0) -> Tensor:
        """Places of some images of each class, by what was drawn for no other purpose."""
        places = [torch.nonzero(self.labels == position).flatten() for position in range(len(CLASSES))]
        order = torch.randperm(120, generator=seeds.generator("test", "rows"))[offset : offset + each]
        return torch.cat([place[order] for place in places])

    def set_of(self, rows: Tensor, factor: int = 1, **changed: Tensor) -> DistilledSet:
        parts = {"images": self.pixels[rows], "labels": self.labels[rows], "indices": self.indices[rows], **changed}
        labels = HardLabels(parts["labels"])
        return DistilledSet(parts["images"], labels, parts["indices"], {"space": "pixel01", "factor": factor})

    def embed(self, distilled: DistilledSet, **other: Any) -> Embedding:
        return embed(self.config(**other), self.encoder, distilled, self.context)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory, digits_cache: Path) -> Digits:
    return Digits(tmp_path_factory.mktemp("embedding"), digits_cache)


def value(rows: list[dict[str, Any]], metric: str, class_id: int | None = None) -> float:
    (row,) = [row for row in rows if row["metric"] == metric and row.get("class_id") == class_id]
    assert isinstance(row["value"], float), row
    return row["value"]


def cloud(seed: int, each: int, shift: float = 0.0, dim: int = 6) -> tuple[Tensor, Tensor]:
    """Three overlapping Gaussian classes."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(3).repeat_interleave(each)
    return torch.randn(3 * each, dim, generator=generator) + labels[:, None] + shift, labels


def real_cloud(seed: int, each: int) -> Real:
    features, labels = cloud(seed, each)
    return Real(features, labels, torch.arange(len(labels)) + 1000)


# --- what the numbers say of sets of known quality --------------------------------------------------------------------


def test_a_set_of_real_images_looks_like_real_images(digits: Digits) -> None:
    rows = digits.embed(digits.set_of(digits.rows_of(50))).rows
    usual = value(rows, "embed_outlier_rate_real")
    assert value(rows, "embed_outlier_rate") == pytest.approx(usual, abs=0.05)
    assert usual < 0.2, "the encoder must tell the classes apart, or nothing could differ"
    assert value(rows, "embed_coverage") > 0.95
    assert value(rows, "embed_centroid_distance") < 2.5 * value(rows, "embed_centroid_distance_expected")
    assert value(rows, "embed_mmd") < value(rows, "embed_mmd_null95")


def test_wrong_labels_make_every_class_an_outlier_as_often_as_chance_says(digits: Digits) -> None:
    rows = digits.rows_of(50)
    wrong = digits.labels[rows][torch.randperm(len(rows), generator=seeds.generator("test", "wrong"))]
    found = digits.embed(digits.set_of(rows, labels=wrong)).rows
    chance = (len(CLASSES) - 1) / len(CLASSES)
    assert value(found, "embed_outlier_rate") == pytest.approx(chance, abs=0.08)
    assert all(value(found, "embed_outlier_rate", c) > 0.5 for c in range(len(CLASSES)))
    assert value(found, "embed_outlier_rate_real") < 0.2  # the same real images are what they were
    assert value(found, "embed_centroid_distance") > 3 * value(found, "embed_centroid_distance_expected")
    assert value(found, "embed_mmd") > 2 * value(found, "embed_mmd_null95")


def test_a_set_far_away_covers_nothing(digits: Digits) -> None:
    rows = digits.rows_of(10)
    noise = torch.randn(40, 1, 8, 8, generator=seeds.generator("test", "noise"))
    near, far = (
        digits.embed(digits.set_of(rows, images=digits.pixels[rows] + size * noise)).rows for size in (0.0, 5.0)
    )
    assert value(near, "embed_coverage") > 0.4
    assert value(far, "embed_coverage") == 0
    assert value(near, "embed_mmd") < value(near, "embed_mmd_null95")
    assert value(far, "embed_mmd") > 5 * value(far, "embed_mmd_null95")
    for position in range(len(CLASSES)):
        shift = value(far, "embed_centroid_distance", position)
        assert shift > 3 * value(near, "embed_centroid_distance", position)


def test_an_image_is_not_its_own_neighbour(digits: Digits) -> None:
    """With one neighbour, a set of real images that may find themselves has no outlier at all."""
    rows = digits.rows_of(EACH)
    real = embedding.embed_real(digits.dataset, CLASSES, 120, digits.encoder, digits.context)
    known = digits.embed(digits.set_of(rows), neighbours=1, real_per_class=120).rows
    nowhere = torch.full((len(rows),), -1)
    unknown = digits.embed(digits.set_of(rows, indices=nowhere), neighbours=1, real_per_class=120).rows
    assert value(unknown, "embed_outlier_rate") == 0
    own = torch.isin(real.ids, digits.indices[rows])
    nearest = NearestNeighbors(n_neighbors=2).fit(real.features.numpy()).kneighbors(real.features.numpy())[1][:, 1]
    other = (real.labels[torch.from_numpy(nearest)] != real.labels)[own]
    assert value(known, "embed_outlier_rate") == pytest.approx(float(other.double().mean())) != 0


def test_classes_and_counts_stand_on_every_row(digits: Digits) -> None:
    rows = digits.embed(digits.set_of(digits.rows_of(5))).rows
    assert {row["property"] for row in rows} == {"informativeness"}
    for row in rows:
        assert row["embed_dim"] == 16 * 4 * 4
        assert row["neighbours"] == NEIGHBOURS
        assert row["n"] > 0
    (overall,) = [row for row in rows if row["metric"] == "embed_outlier_rate" and "class_id" not in row]
    assert (overall["n"], overall["ci_method"], overall["ci_unit"]) == (20, "wilson", "images")
    assert overall["ci_low"] <= overall["value"] <= overall["ci_high"]
    by_class = [row for row in rows if row["metric"] == "embed_coverage" and "class_id" in row]
    assert [(row["class_id"], row["n"]) for row in by_class] == [(position, EACH) for position in range(4)]


# --- what is embedded -------------------------------------------------------------------------------------------------


def test_features_are_those_of_the_images_as_the_encoder_wants_them(digits: Digits) -> None:
    rows = digits.rows_of(3)
    found = digits.embed(digits.set_of(rows))
    network = build(digits.encoder.network, "a test")
    with torch.no_grad():
        expected = network.features(normalise(digits.pixels[rows], (0.25,), (0.5,))).flatten(1)
    torch.testing.assert_close(found.features, expected)
    torch.testing.assert_close(found.labels, digits.labels[rows])


def test_an_encoder_that_was_trained_on_whitened_images_sees_such(digits: Digits) -> None:
    rows = digits.rows_of(3)
    images = normalise(digits.pixels, (0.25,), (0.5,))
    whitening = fit_whitening(images, (0.25,), (0.5,))
    encoder = TrainedModel(digits.encoder.state, digits.encoder.network, (0.25,), (0.5,), whitening=whitening)
    found = embed(digits.config(), encoder, digits.set_of(rows), digits.context)
    with torch.no_grad():
        expected = build(encoder.network, "a test").embed(whitening.whiten(images[rows], (0.25,), (0.5,)))
    torch.testing.assert_close(found.features, expected)
    assert not torch.allclose(found.features, digits.embed(digits.set_of(rows)).features)


def test_a_factor_gives_the_decoded_images(digits: Digits) -> None:
    rows = digits.rows_of(3)
    tiles = digits.indices[rows][:, None].repeat(1, 4)
    found = digits.embed(digits.set_of(rows, factor=2, indices=tiles))
    whole = digits.embed(digits.set_of(rows))
    assert len(found.labels) == len(found.features) == 4 * len(whole.labels)
    decoded = digits.set_of(rows, images=decode(digits.pixels[rows], 2)[:12])
    torch.testing.assert_close(found.features[:12], digits.embed(decoded).features)
    assert found.labels.tolist() == digits.labels[rows].tolist() * 4


def test_a_small_class_limits_how_many_real_images_there_are(digits: Digits) -> None:
    rows = digits.embed(digits.set_of(digits.rows_of(3)), real_per_class=5000).rows
    (overall,) = [row for row in rows if row["metric"] == "embed_coverage" and "class_id" not in row]
    assert 4 * 100 < overall["n"] < 4 * 150
    assert overall["n"] % 4 == 0


def test_what_does_not_fit_is_refused(digits: Digits) -> None:
    rows = digits.rows_of(3)
    lacking = digits.set_of(rows[:9])
    with pytest.raises(ValueError, match=r"got \[0, 1, 2\]; expected every one from 0 to 3"):
        digits.embed(lacking)
    with pytest.raises(ValueError, match=r"a set of \(1, 6, 6\).*expected \(1, 8, 8\)"):
        digits.embed(digits.set_of(rows, images=torch.zeros(12, 1, 6, 6)))


# --- formulas, done another way ---------------------------------------------------------------------------------------


def test_outliers_and_coverage_as_scikit_learn_and_loops_find_them() -> None:
    real = real_cloud(1, 30)
    features, labels = cloud(2, 12, shift=0.3)
    rows = embedding_rows(features, labels, real, 3, 5)
    nearest = NearestNeighbors(n_neighbors=5).fit(real.features.numpy()).kneighbors(features.numpy())[1]
    other = (real.labels.numpy()[nearest] != labels.numpy()[:, None]).sum(1)
    assert value(rows, "embed_outlier_rate") == pytest.approx(float(np.mean(other >= 3)))
    covered = 0
    for point, label in zip(real.features.numpy(), real.labels.numpy(), strict=True):
        among = np.sort(np.linalg.norm(real.features.numpy()[real.labels.numpy() == label] - point, axis=1))
        made = np.linalg.norm(features.numpy()[labels.numpy() == label] - point, axis=1)
        covered += bool(made.min() <= among[5])  # among[0] is the point itself
    assert value(rows, "embed_coverage") == pytest.approx(covered / 90)


def test_coverage_of_the_same_distribution_is_what_its_lemma_says() -> None:
    generator = torch.Generator().manual_seed(5)

    def share(shift: float) -> Tensor:
        made, among = (torch.randn(count, 4, generator=generator) for count in (5, 20))
        return embedding.covers(made + shift, among, 3).double().mean()

    same, shifted = (torch.stack([share(shift) for _ in range(400)]) for shift in (0.0, 0.7))
    error = 4 * float(same.std()) / 400**0.5
    assert float(same.mean()) == pytest.approx(embedding.expected_coverage(20, 5, 3), abs=error)
    assert float(shifted.mean()) < embedding.expected_coverage(20, 5, 3) - 2 * error


def test_centroid_distance_by_hand() -> None:
    real = torch.tensor([[0.0, 0.0], [0.0, 2.0], [2.0, 0.0], [2.0, 2.0]])  # centre (1, 1), every distance sqrt 2
    assert centroid_distance(torch.tensor([[4.0, 4.0], [4.0, 6.0]]), real) == pytest.approx(5 / 2**0.5)
    assert centroid_distance(real[:1], real[:1].repeat(3, 1)) is None


def test_mmd_by_its_definition() -> None:
    made, among = cloud(4, 3, shift=0.2)[0], cloud(3, 4)[0]
    points = torch.cat([made, among]).double().numpy()
    distances = ((points[:, None] - points[None]) ** 2).sum(-1)
    pairs = np.sort(distances[np.triu_indices(len(points), 1)])
    kernel = np.exp(-distances / (2 * pairs[(len(pairs) - 1) // 2]))  # the lower of two middle values
    a, b = len(made), len(among)
    expected = 0.0
    for i in range(a + b):
        for j in range(a + b):
            if i != j:
                weight = 1 / (a * (a - 1)) if max(i, j) < a else 1 / (b * (b - 1)) if min(i, j) >= a else -1 / (a * b)
                expected += weight * kernel[i, j]
    found, null = mmd(made, among, 0)
    assert found == pytest.approx(expected, rel=1e-9)
    assert null is not None
    assert len(null) == embedding.MMD_PERMUTATIONS


def test_mmd_has_no_bias_and_its_null_holds() -> None:
    generator = torch.Generator().manual_seed(5)
    draws = [mmd(torch.randn(6, 4, generator=generator), torch.randn(9, 4, generator=generator), 0) for _ in range(200)]
    values = np.array([squared for squared, _ in draws])
    assert abs(values.mean()) < 3 * values.std() / 200**0.5
    assert (values < 0).mean() > 0.3, "an estimate that is hardly ever negative is biased"
    above = [squared > float(torch.quantile(null, 0.95)) for squared, null in draws if squared is not None]  # type: ignore[arg-type]
    assert 0.01 < np.mean(above) < 0.10


def test_a_single_image_has_no_mmd() -> None:
    features, labels = cloud(7, 1)
    rows = embedding_rows(features, labels, real_cloud(1, 4), 3, 1)
    found = [row for row in rows if row["metric"].startswith("embed_mmd")]
    assert [(row["value"], row["flag"]) for row in found] == [(None, "degenerate")] * 8
    assert value(rows, "embed_outlier_rate") >= 0


# --- the map ----------------------------------------------------------------------------------------------------------


def tsne(digits: Digits, embeddings: list[Embedding], perplexity: float = 10.0) -> Any:
    config = TsneConfig(
        dataset=digits.dataset,
        classes=CLASSES,
        real_per_class=30,
        perplexity=perplexity,
        sources=tuple(f"set {index}" for index in range(len(embeddings))),
    )
    return joint_tsne(config, digits.encoder, embeddings, digits.context)


def test_one_map_for_all_and_the_same_map_twice(
    digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "MAX_ITERATIONS", 300)
    sets = [digits.embed(digits.set_of(digits.rows_of(each, 60)), real_per_class=30) for each in (5, 8)]
    found, again = tsne(digits, sets), tsne(digits, sets)
    assert torch.equal(found.points, again.points)
    assert found.info == again.info
    assert torch.bincount(found.sources).tolist() == found.info["points"] == [120, 20, 32]
    assert found.info["sources"] == ["real", "set 0", "set 1"]
    assert found.labels[found.sources == 1].tolist() == sets[0].labels.tolist()
    assert (found.info["perplexity"], found.info["max_iter"], found.info["init"]) == (10.0, 300, "pca")
    assert len(found.info["fit_id"]) == 12  # one for the whole map; another map has another
    assert tsne(digits, sets[:1]).info["fit_id"] != found.info["fit_id"]
    found.save(tmp_path)
    assert type(found).load(tmp_path).info == found.info

    real = embedding.embed_real(digits.dataset, CLASSES, 30, digits.encoder, digits.context)
    features = torch.cat([real.features, *(each.features for each in sets)]).numpy()
    trust = trustworthiness(features, found.points.numpy(), n_neighbors=10)
    # Two distances that are equal to rounding may change places between processors: each such pair costs one rank.
    one_rank = 2 / (172 * 10 * (2 * 172 - 3 * 10 - 1))
    assert found.info["trustworthiness"] == pytest.approx(trust, abs=2 * one_rank)
    shuffled = found.points[torch.randperm(172, generator=seeds.generator("test", "map"))].numpy()
    assert trust > 0.9 > 0.7 > trustworthiness(features, shuffled, n_neighbors=10)


def test_too_few_points_lower_the_perplexity_and_say_so(digits: Digits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "MAX_ITERATIONS", 260)
    one = digits.embed(digits.set_of(digits.rows_of(2)), real_per_class=30)
    found = tsne(digits, [one], perplexity=500.0)
    assert found.info["perplexity"] == pytest.approx(127 / 3)
    assert found.info["perplexity_asked"] == 500.0


def test_a_chosen_real_image_covers_whatever_rounding_does() -> None:
    """Where it is another image's k-th neighbour, two distances are the same number, computed twice."""
    generator = torch.Generator().manual_seed(0)
    among = torch.randn(40, 64, generator=generator)
    strictly, covered = [], []
    for chosen in range(len(among)):
        between = embedding.squared_distances(among, among).fill_diagonal_(torch.inf)
        ranks = between.argsort(1).argsort(1)[:, chosen]
        (kth,) = (ranks == 2).nonzero(as_tuple=True)
        noise = 1 + 1e-6 * torch.randn(64, generator=generator)
        made = (among[chosen] * noise)[None]
        covered += embedding.covers(made, among, 3)[kth].tolist()
        radius = between.kthvalue(3, dim=1).values
        strictly += (embedding.squared_distances(among, made)[:, 0] <= radius)[kth].tolist()
    assert all(covered)
    assert not all(strictly), "rounding must have something to decide"
    assert len(covered) == 40
