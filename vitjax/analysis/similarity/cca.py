"""Canonical correlations and Procrustes distance: similarity up to a linear map or a rotation."""

import math

import numpy as np

from vitjax.analysis.similarity import stacks
from vitjax.analysis.similarity.stacks import Representation

_RANK = 1e-5  # singular value over the largest, below which it is zero within float32's rounding


def cca(x: Representation, y: Representation | None = None) -> np.ndarray:
    """Mean canonical correlation [Lx, Ly] (Hotelling 1936; Raghu et al. 2017).

    With Q_x, Q_y orthonormal bases of the centred features, the canonical correlations are the
    singular values of `Q_xᵀ Q_y`; their sum is divided by the smaller rank. 0 to 1; invariant to
    shift and to any invertible linear map of either side: exactly to the scale of each feature, to
    others within float32's precision. (With features scaled alike, directions of less than 1e-5 of
    the largest singular value count as rounding.) Two sides with more directions in all than
    examples always share some: the value is near 1 long before f reaches n.
    Cost, in float64 on the host: f² n a layer and n f g + f g min(f, g) a pair.

    >>> rng = np.random.default_rng(0)
    >>> x, noise = rng.normal(size=(2, 1, 100, 8))  # one layer, 100 examples, 8 features
    >>> cca(x, np.concatenate([x @ rng.normal(size=(8, 8)), x + noise])).round(2)
    array([[1.  , 0.73]])

    Raises:
        ValueError: unless there are two examples more than features (otherwise it is always 1); if
            a layer is constant or not finite.
    """
    return _canonical('cca', x, y)


def svcca(
    x: Representation, y: Representation | None = None, *, variance: float = 0.99
) -> np.ndarray:
    """SVCCA [Lx, Ly]: `cca` of the leading principal directions (Raghu et al. 2017).

    Keeps of each layer the fewest singular directions that hold the fraction `variance` of its
    variance. Only these must be two fewer than the examples: there may be more features. 0 to 1;
    invariant to rotation, scale and shift. Cost and other errors as `cca`.
    """
    if not 0 < variance <= 1:
        raise ValueError(f'variance must be above 0 and at most 1: {variance=}.')
    return _canonical('svcca', x, y, variance)


def pwcca(x: Representation, y: Representation | None = None) -> np.ndarray:
    """Projection-weighted CCA [Lx, Ly] (Morcos et al. 2018, eq. 6).

    Mean of the canonical correlations ρ_i with weights `Σ_j |⟨h_i, x_j⟩|`, the size of x's features
    x_j along the canonical variable h_i of x. 0 to 1; not symmetric in x and y;
    invariant to any invertible map of y (as `cca`), to shift and scale of x. Cost and errors as
    `cca`.
    """
    return _canonical('pwcca', x, y)


def procrustes(x: Representation, y: Representation | None = None) -> np.ndarray:
    """Orthogonal Procrustes distance [Lx, Ly]: `min over rotations Q of |X - Y Q|` (Frobenius).

    Features are centred and each layer scaled to norm 1: `√(2 - 2 |XᵀY|_*)` (Ding et al. 2021, who
    give its square; Williams et al. 2021, the narrower side padded with zeros). 0 to √2; a metric;
    invariant to rotation, scale and shift. In float64 on the host, so that a layer's distance to
    itself is below 1e-6. Cost: f² n a layer, n f g + f g min(f, g) a pair, with n instead of f if
    there are fewer examples than features.

    >>> rng = np.random.default_rng(0)
    >>> x, noise = rng.normal(size=(2, 1, 100, 8))  # one layer, 100 examples, 8 features
    >>> procrustes(x, np.concatenate([2 * x[..., ::-1] + 1, x + noise])).round(2)
    array([[0.  , 0.71]])

    Raises:
        ValueError: if a layer is constant or not finite.
    """
    left, right = stacks.each_layer(_unit_norm, *stacks.both_sides(x, y))
    nuclear = [[np.linalg.svd(a.T @ b, compute_uv=False).sum() for b in right] for a in left]
    return np.sqrt(np.maximum(2 - 2 * np.array(nuclear), 0))


def procrustes_angle(x: Representation, y: Representation | None = None) -> np.ndarray:
    """Angle in radians of `procrustes`, `arccos |XᵀY|_*` (Williams et al. 2021, eq. 7).

    0 to π/2; a metric. As `2 arcsin(distance / 2)`, which keeps its digits near 0.
    """
    return 2 * np.arcsin(np.clip(procrustes(x, y) / 2, 0, math.sqrt(0.5)))


def _canonical(
    name: str, x: Representation, y: Representation | None, variance: float | None = None
) -> np.ndarray:
    left, right = stacks.both_sides(x, y)
    examples = stacks.count_examples(left, right)
    reason = (
        f'{name} needs two examples more than directions (or it is 1, whatever they are): '
        f'{examples} examples'
    )
    for side, own in (('x', left), ('y', right)):
        widest = max(stack.shape[2] for stack in own)
        if variance is None and widest > examples - 2:
            raise ValueError(f'{reason}, {side} has {widest} features.')

    def basis(layer: np.ndarray, label: str) -> tuple[np.ndarray, np.ndarray]:
        directions, loadings = _basis(layer, variance)
        count = directions.shape[1]
        if count > examples - 2:
            held = f'{count} directions that hold {variance:.2%} of its variance'
            raise ValueError(f'{reason}, {label} has {held}.')
        return directions, loadings

    def measure(a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]) -> float:
        (u, loadings), (v, _) = a, b
        if name != 'pwcca':
            return np.linalg.svd(u.T @ v, compute_uv=False).mean()
        w, correlations, _ = np.linalg.svd(u.T @ v, full_matrices=False)
        # U W are the canonical variables of x. With UᵀX the loadings, WᵀUᵀX are the components of
        # its features along each.
        weights = np.abs(w.T @ loadings).sum(1)
        return (weights * correlations).sum() / weights.sum()

    bases = stacks.each_layer(basis, left, right)
    return np.minimum([[measure(a, b) for b in bases[1]] for a in bases[0]], 1)


def _basis(layer: np.ndarray, variance: float | None) -> tuple[np.ndarray, np.ndarray]:
    """Orthonormal directions of a layer's examples [n, r], and its features along them [r, f].

    Args:
        layer: [n, f].
        variance: fraction of it that the leading directions must hold; None takes all directions of
            features that are scaled alike.
    """
    centred = layer - layer.mean(0)
    reach = np.ones(centred.shape[1])
    if variance is None:
        # The rank must not depend on the units of the features.
        reach = np.abs(centred).max(0)
        varies = reach > math.sqrt(stacks.CONSTANT) * np.abs(layer[0])
        centred, reach = centred[:, varies], reach[varies]
    u, s, v = np.linalg.svd(centred / reach, full_matrices=False)
    keep = s > _RANK * s[0]
    if variance is not None:
        held = np.cumsum(s[::-1] ** 2)[
            ::-1
        ]  # variance of a direction and all after it: small terms first
        keep &= held > (1 - variance) * held[0]
    return u[:, keep], s[keep, None] * v[keep] * reach


def _unit_norm(layer: np.ndarray, _: str) -> np.ndarray:
    layer = layer - layer.mean(0)
    if layer.shape[0] < layer.shape[1]:  # smaller, with the same Gram matrix
        layer = np.linalg.qr(layer.T)[1].T
    return layer / np.linalg.norm(layer)
