"""Representations to compare, and every measure in float64 NumPy, straight from its paper."""

import numpy as np
import scipy.linalg
import scipy.stats


def representation(seed, layers=3, examples=40, features=12, like=None):
    """Layers with some structure in common and some of their own, far from the origin."""
    rng = np.random.default_rng(seed)
    own = rng.normal(size=(layers, examples, features)) * np.geomspace(1, 4, features)
    shared = np.random.default_rng(99).normal(size=(examples, 5))
    share = np.linspace(0.2, 2, layers)[:, None, None]
    out = own + share * (shared @ rng.normal(size=(layers, 5, features))) + 10
    return out.astype(np.float32)


def single(values):
    return np.asarray(values, np.float32)


def rotation(width, seed=0):
    return scipy.stats.ortho_group.rvs(width, random_state=seed).astype(np.float32)


def each_pair(measure, x, y):
    return np.array([[measure(np.float64(a), np.float64(b)) for b in y] for a in x])


def inverse_root(matrix):
    values, vectors = np.linalg.eigh(matrix)
    return (vectors / np.sqrt(values)) @ vectors.T


def reference_hsic(x, y, kernel='linear', unbiased=True, bandwidth=1.0):
    def gram(a):
        if kernel == 'linear':
            return a @ a.T
        distances = np.sqrt(((a[:, None] - a[None]) ** 2).sum(-1))
        scale = bandwidth * np.median(distances[~np.eye(len(a), dtype=bool)])
        return np.exp(-(distances**2) / (2 * scale**2))

    k, m, n = gram(x), gram(y), len(x)
    if not unbiased:
        h = np.eye(n) - 1 / n
        return np.trace(k @ h @ m @ h) / (n - 1) ** 2
    np.fill_diagonal(k, 0)
    np.fill_diagonal(m, 0)
    return (
        np.trace(k @ m)
        + k.sum() * m.sum() / ((n - 1) * (n - 2))
        - 2 / (n - 2) * (k.sum(0) @ m.sum(1))
    ) / (n * (n - 3))


def reference_cka(**how):
    def measure(a, b):
        return reference_hsic(a, b, **how) / np.sqrt(
            reference_hsic(a, a, **how) * reference_hsic(b, b, **how)
        )

    return measure


def reference_cca(a, b):
    a, b = a - a.mean(0), b - b.mean(0)
    return np.linalg.svd(inverse_root(a.T @ a) @ a.T @ b @ inverse_root(b.T @ b))


def reference_principal(a, variance):
    a = a - a.mean(0)
    u, s, v = np.linalg.svd(a, full_matrices=False)
    count = int(np.searchsorted(np.cumsum(s**2) / (s**2).sum(), variance)) + 1
    return a @ v[:count].T


def reference_pwcca(a, b):
    centred = a - a.mean(0)
    u, rho, _ = reference_cca(a, b)
    h = centred @ inverse_root(centred.T @ centred) @ u[:, : len(rho)]
    weights = np.abs(h.T @ centred).sum(1)
    return (weights * rho).sum() / weights.sum()


def reference_procrustes(a, b):
    a, b = ((c - c.mean(0)) / np.linalg.norm(c - c.mean(0)) for c in (a, b))
    width = max(a.shape[1], b.shape[1])
    a, b = (np.pad(c, ((0, 0), (0, width - c.shape[1]))) for c in (a, b))
    q, _ = scipy.linalg.orthogonal_procrustes(b, a)
    return np.linalg.norm(a - b @ q)


def reference_rsa(comparison, dissimilarity):
    def measure(a, b):
        upper = np.triu_indices(len(a), 1)
        if dissimilarity == 'correlation':
            tables = [1 - np.corrcoef(c) for c in (a, b)]
        else:
            tables = [np.sqrt(((c[:, None] - c[None]) ** 2).sum(-1)) for c in (a, b)]
        u, v = (t[upper] for t in tables)
        if comparison == 'spearman':
            u, v = scipy.stats.rankdata(u), scipy.stats.rankdata(v)
            return np.corrcoef(u, v)[0, 1]
        return u @ v / np.linalg.norm(u) / np.linalg.norm(v)

    return measure


def reference_knn(k):
    def nearest(a):
        unit = a / np.linalg.norm(a, axis=1, keepdims=True)
        cosines = unit @ unit.T
        np.fill_diagonal(cosines, -np.inf)
        return [set(row) for row in np.argsort(-cosines, axis=1)[:, :k]]

    return lambda a, b: np.mean(
        [len(s & t) / k for s, t in zip(nearest(a), nearest(b), strict=True)]
    )
