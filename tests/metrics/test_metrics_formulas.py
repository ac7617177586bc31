"""Formulas of the metrics against closed forms, straightforward float64 versions and torch-fidelity."""

import numpy as np
import pytest
import scipy.linalg
import torch
from support import peers

from metrics.families import FAMILIES
from metrics.formulas import kernel
from metrics.formulas.bootstrap import draw_rows, inception_values, multiplicities
from metrics.formulas.frechet import MomentAccumulator, Moments, frechet_distance, moments_of
from metrics.formulas.inception_score import inception_score
from metrics.formulas.kernel import kernel_distance
from metrics.formulas.memorisation import memorisation, memorisation_values, nearest_distances
from metrics.formulas.neighbours import density_coverage, kth_distances, precision_recall
from metrics.formulas.path_length import lerp, slerp, trimmed_mean
from metrics.metric import Metric


def features(n, d, seed, offset=0.0):
    rng = np.random.RandomState(seed)
    return torch.from_numpy(rng.randn(n, d) @ rng.randn(d, d) / d**0.5 + offset).float()


def gaussian(mean, cov, count=10**6):
    return Moments(count, torch.from_numpy(np.asarray(mean, float)), torch.from_numpy(np.asarray(cov, float)))


# -- Fréchet distance ----------------------------------------------------------------------------------------------


def test_frechet_of_one_dimension():
    """(m1 - m2)^2 + (s1 - s2)^2."""
    assert frechet_distance(gaussian([1], [[4]]), gaussian([3], [[25]])) == pytest.approx(4 + 9)


@pytest.mark.parametrize(("condition", "tolerance"), [(1e1, 1e-12), (1e5, 1e-12), (1e10, 1e-11), (1e15, 1e-7)])
def test_frechet_of_commuting_covariances(condition, tolerance):
    """Closed form: the covariances share eigenvectors, so the distance is that of their eigenvalues."""
    rng = np.random.RandomState(0)
    q = np.linalg.qr(rng.randn(100, 100))[0]
    a = np.logspace(0, -np.log10(condition), 100)
    b = rng.permutation(a) * 2
    exact = (a + b - 2 * np.sqrt(a * b)).sum() + 100 * 0.01
    covs = [(q * values) @ q.T for values in (a, b)]
    ours = frechet_distance(gaussian(np.zeros(100), covs[0]), gaussian(np.full(100, 0.1), covs[1]))
    assert ours == pytest.approx(exact, rel=tolerance)


@pytest.mark.parametrize(
    ("n1", "n2", "d"), [(2000, 1500, 64), (200, 150, 64), (40, 50, 64), (40, 2000, 64), (65, 64, 64)]
)
def test_frechet_against_scipy_sqrtm(n1, n2, d):
    a, b = features(n1, d, 0).double(), features(n2, d, 1, offset=0.2).double()
    covs = [np.cov(x.numpy(), rowvar=False) for x in (a, b)]
    root = np.trace(scipy.linalg.sqrtm(covs[0] @ covs[1])).real
    expected = float((a.mean(0) - b.mean(0)).square().sum()) + np.trace(covs[0]) + np.trace(covs[1]) - 2 * root
    tolerance = 1e-9 if min(n1, n2) > d else 1e-6  # sqrtm itself is that uncertain on singular matrices
    assert frechet_distance(moments_of(a), moments_of(b)) == pytest.approx(expected, rel=tolerance)
    assert frechet_distance(moments_of(b), moments_of(a)) == pytest.approx(expected, rel=tolerance)


def test_frechet_with_fewer_samples_than_dimensions():
    """tr (S1 S2)^(1/2) is the nuclear norm of X1 X2^T, the n x n matrix of centred samples' products."""
    a, b = features(30, 200, 0).double(), features(40, 200, 1).double()
    rows = [(x - x.mean(0)) / (len(x) - 1) ** 0.5 for x in (a, b)]
    root = torch.linalg.svdvals(rows[0] @ rows[1].T).sum()
    exact = (a.mean(0) - b.mean(0)).square().sum() + sum(x.square().sum() for x in rows) - 2 * root
    assert frechet_distance(moments_of(a), moments_of(b)) == pytest.approx(float(exact), rel=1e-12)


def test_frechet_of_constant_features():
    """Every image the same: the covariance is zero, and the distance that of a point."""
    point = moments_of(torch.ones(20, 5))
    other = moments_of(features(5000, 5, 0))
    assert frechet_distance(point, point) == 0
    expected = (other.mean - 1).square().sum() + other.cov.trace()
    assert frechet_distance(point, other) == pytest.approx(float(expected))


def test_frechet_of_equal_sets_is_zero():
    a = moments_of(features(500, 64, 0))
    assert abs(frechet_distance(a, a)) < 1e-10


def test_moments_by_chunks_and_far_from_zero():
    x = features(1000, 8, 0).double() + 1e6
    accumulator = MomentAccumulator()
    for part in x.split([1, 333, 17, 649]):
        accumulator.append(part)
    m = accumulator.moments()
    assert m.count == 1000
    np.testing.assert_allclose(m.mean, x.mean(0), rtol=1e-14)
    np.testing.assert_allclose(m.cov, np.cov((x - 1e6).numpy(), rowvar=False), rtol=1e-8)


def test_frechet_refuses_other_dimensions():
    with pytest.raises(ValueError, match="can't be compared"):
        frechet_distance(moments_of(torch.rand(9, 2)), moments_of(torch.rand(9, 3)))
    with pytest.raises(ValueError, match="at least 2"):
        moments_of(torch.rand(1, 2))


# -- kernel distance -----------------------------------------------------------------------------------------------


def plain_mmd2(x, y):
    """Bińkowski et al., eq. 4, term by term."""
    x, y = x.double().numpy(), y.double().numpy()

    def k(a, b):
        return (a @ b / len(a) + 1) ** 3

    n, m = len(x), len(y)
    xx = sum(k(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    yy = sum(k(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return xx + yy - 2 * sum(k(a, b) for a in x for b in y) / (n * m)


def test_kernel_distance_of_whole_sets():
    """Subsets as large as the sets: every subset is the set, so the estimate is exact and has no spread."""
    x, y = features(40, 8, 0), features(40, 8, 1, offset=0.3)
    mean, std = kernel_distance(x, y, subsets=3)
    assert mean == pytest.approx(plain_mmd2(x, y), rel=1e-10)
    assert std < 1e-12


def test_kernel_distance_by_either_way(monkeypatch):
    x, y = features(300, 16, 0), features(200, 16, 1, offset=0.2)
    whole = kernel_distance(x, y, subsets=20, subset_size=60)
    monkeypatch.setattr(kernel, "_WHOLE_KERNEL_ROWS", 0)
    assert kernel_distance(x, y, subsets=20, subset_size=60) == pytest.approx(whole, rel=1e-10)


def test_kernel_distance_agrees_with_torch_fidelity():
    peers.torch_fidelity()
    from torch_fidelity.metric_kid import kid_features_to_metric

    x, y = features(400, 16, 0), features(500, 16, 1, offset=0.2)
    peer = kid_features_to_metric(x, y, kid_subsets=100, kid_subset_size=400, verbose=False)
    mean, std = kernel_distance(x, y, subsets=100, subset_size=400)
    error = 4 * peer["kernel_inception_distance_std"] / 100**0.5
    assert mean == pytest.approx(peer["kernel_inception_distance_mean"], abs=error)


def test_kernel_distance_is_unbiased():
    """Two halves of one distribution: zero within the spread, negative values included."""
    x = features(2000, 8, 0)
    mean, std = kernel_distance(x[:1000], x[1000:], subset_size=200)
    assert abs(mean) < 2 * std


def test_kernel_distance_leaves_the_random_state_alone():
    np.random.seed(3)
    before = np.random.get_state()[1].copy()
    kernel_distance(features(20, 4, 0), features(20, 4, 1))
    assert (np.random.get_state()[1] == before).all()


# -- inception score -----------------------------------------------------------------------------------------------


def test_inception_score_agrees_with_torch_fidelity():
    peers.torch_fidelity()
    from torch_fidelity.metric_isc import isc_features_to_metric

    logits = features(1003, 30, 0) * 3
    peer = isc_features_to_metric(logits, splits=1, shuffle=False)
    assert inception_score(logits.double().softmax(1), 1)[0] == pytest.approx(peer["inception_score_mean"])
    scores = [inception_score(part.double().softmax(1), 1)[0] for part in logits.split([101] * 3 + [100] * 7)]
    mean, std = inception_score(logits.double().softmax(1))
    assert mean == pytest.approx(np.mean(scores))
    assert std == pytest.approx(np.std(scores))


def test_inception_score_bounds():
    """One class each, evenly: the number of classes. All alike: 1."""
    assert inception_score(torch.eye(10).repeat(20, 1))[0] == pytest.approx(10)
    assert inception_score(torch.full((50, 10), 0.1))[0] == pytest.approx(1)


# -- nearest neighbours --------------------------------------------------------------------------------------------


def plain_distances(x, y):
    return np.linalg.norm(x.double().numpy()[:, None] - y.double().numpy()[None], axis=2)


def plain_radii(x, k):
    return np.sort(plain_distances(x, x), axis=1)[:, k]  # column 0 is the point itself


@pytest.mark.parametrize("block", [10_000, 7])
def test_neighbour_metrics_against_plain_versions(block):
    real, fake = features(120, 6, 0), features(90, 6, 1, offset=0.5)
    between = plain_distances(real, fake)
    precision = (between <= plain_radii(real, 3)[:, None]).any(0).mean()
    recall = (between <= plain_radii(fake, 3)[None]).any(1).mean()
    inside = between < plain_radii(real, 5)[:, None]
    assert 0.1 < precision < 0.95
    assert precision_recall(real, fake, 3, block) == pytest.approx((precision, recall))
    assert density_coverage(real, fake, 5, block) == pytest.approx((inside.sum() / (5 * 90), inside.any(1).mean()))


def test_precision_recall_agrees_with_torch_fidelity():
    peers.torch_fidelity()
    from torch_fidelity.metric_prc import calculate_precision_recall_full

    real, fake = features(400, 12, 0), features(300, 12, 1, offset=0.3)
    assert precision_recall(real, fake, 3) == pytest.approx(calculate_precision_recall_full(fake, real, 3))


def test_neighbours_far_from_zero():
    """Features with a large common offset keep their neighbours."""
    real, fake = features(200, 6, 0), features(150, 6, 1, offset=0.5)
    assert density_coverage(real + 300, fake + 300) == pytest.approx(density_coverage(real, fake), abs=0.01)


def test_too_few_points():
    with pytest.raises(ValueError, match="more than 5 points"):
        kth_distances(torch.rand(5, 2), 5)


# -- path length ---------------------------------------------------------------------------------------------------


def test_slerp_turns_at_constant_speed():
    a, b = torch.tensor([[3.0, 0, 0]]), torch.tensor([[0, 0.5, 0]])
    for t in (0.0, 0.25, 1.0):
        expected = torch.tensor([[np.cos(t * np.pi / 2), np.sin(t * np.pi / 2), 0]]).float()
        torch.testing.assert_close(slerp(a, b, torch.tensor([[t]])), expected)
    torch.testing.assert_close(lerp(a, b, torch.tensor([[0.25]])), torch.tensor([[2.25, 0.125, 0]]))


def test_trimmed_mean_leaves_out_the_extremes():
    values = torch.arange(1000.0)
    values[-1] = 1e9
    assert trimmed_mean(values[torch.randperm(1000)]) == pytest.approx(values[9:991].mean())


# -- spread --------------------------------------------------------------------------------------------------------


def toy_pair(seed: int, n: int = 400) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of two generators for the same latents."""
    z, more = np.random.RandomState(seed).randn(2, n, 6)
    return torch.from_numpy(0.9 * z).float(), torch.from_numpy(0.8 * z + 0.3 * more + 0.1).float()


@pytest.mark.parametrize("family", ["fid", "kid", "is", "pr", "cov"])
def test_the_bootstrap_predicts_what_fresh_images_give(family):
    """For one network, and for the difference of two that share their latents: within a factor of 1.5 of the deviation
    over 60 fresh sets of images, for every value."""
    info, metric = FAMILIES[family], Metric("x", family, "toy", 400, neighbours=FAMILIES[family].neighbours)
    real = torch.from_numpy(np.random.RandomState(99).randn(400, 6)).float()
    real = moments_of(real) if family == "fid" else real
    features = (lambda x: x.softmax(1)) if family == "is" else (lambda x: x)
    compute, cpu = info.compute, torch.device("cpu")

    def value(x: torch.Tensor) -> dict[str, float]:
        return compute(metric, real, moments_of(x) if family == "fid" else features(x), cpu)

    fresh = [tuple(map(value, toy_pair(seed))) for seed in range(60)]
    rows = draw_rows(400, 150)
    a, b = (info.resampled(metric, real, features(x), rows, cpu) for x in toy_pair(0))
    assert a.keys() == b.keys()
    for name in a:
        single = np.std([second[name] for _, second in fresh], ddof=1)
        paired = np.std([second[name] - first[name] for first, second in fresh], ddof=1)
        assert 1 / 1.5 < np.std(b[name], ddof=1) / single < 1.5, name
        assert 1 / 1.5 < np.std(b[name] - a[name], ddof=1) / paired < 1.5, name


@pytest.mark.parametrize("family", ["fid", "is", "pr", "cov", "mem"])
def test_every_image_once_is_the_value_itself(family):
    """The resampling that takes each image once; the kernel distance's own value comes from subsets instead."""
    info, metric = FAMILIES[family], Metric("x", family, "toy", 400, neighbours=FAMILIES[family].neighbours)
    real, generated = toy_pair(0)
    if family == "is":
        generated = generated.softmax(1)
    side = {"fid": moments_of(real), "mem": (real[:200], real[200:])}.get(family, real)
    found = moments_of(generated) if family == "fid" else generated
    cpu = torch.device("cpu")
    expected = info.compute(metric, side, found, cpu)
    for name, value in info.resampled(metric, side, generated, np.arange(400)[None], cpu).items():
        assert value == pytest.approx([expected[name]], rel=1e-6), name


def test_resamplings_are_the_same_for_all():
    assert (draw_rows(50, 3) == draw_rows(50, 3)).all()
    weights = multiplicities(draw_rows(50, 3))
    assert weights.sum(1).tolist() == [50.0] * 3
    assert inception_values(torch.eye(10).repeat(5, 1), draw_rows(50, 3)).shape == (3,)


# -- memorisation ----------------------------------------------------------------------------------------------------


def test_distances_to_the_nearest():
    """Against plain differences in float64; a copy is at 0 however far the points are from the origin."""
    rng = np.random.RandomState(0)
    points, others = (torch.from_numpy(rng.randn(n, 5) + 100).float() for n in (30, 70))
    others[7] = points[3]
    expected = (points.double()[:, None] - others.double()[None]).norm(dim=2).min(1).values.numpy()
    found = nearest_distances(points, others, block=13)
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-6)
    assert found[3] == 0


def test_copies_are_told_from_new_pictures():
    rng = np.random.RandomState(0)
    training, held_out, fresh = (torch.from_numpy(rng.randn(500, 8)).float() for _ in range(3))
    held = nearest_distances(held_out, training)
    honest = memorisation(nearest_distances(fresh, training), held)
    assert honest["share"] == pytest.approx(0.05, abs=0.04)
    assert honest["ratio"] == pytest.approx(1, abs=0.05)
    assert honest["p"] > 0.05
    mixed = torch.cat([training[:150] + 0.01 * fresh[:150], fresh[150:]])
    copied = nearest_distances(mixed, training)
    caught = memorisation(copied, held)
    assert caught["share"] > 0.3
    assert caught["ratio"] < 0.95
    assert caught["p"] < 1e-6
    worse = memorisation(nearest_distances(3 * fresh, training), held)
    assert worse["share"] < 0.05
    assert worse["ratio"] > 1.2
    assert worse["p"] > 0.99
    values = memorisation_values(copied, held, draw_rows(500, 100))
    assert values["share"].mean() == pytest.approx(caught["share"], abs=0.02)
    assert values["share"].std() == pytest.approx(np.sqrt(caught["share"] * (1 - caught["share"]) / 500), rel=0.3)
