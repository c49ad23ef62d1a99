"""Batched mixtures of Gaussians by expectation maximization; each image is clustered on its own."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from pacavit.clustering.functional._kmeans import kmeans
from pacavit.clustering.functional._points import (
    being_traced,
    center,
    check_choice,
    check_count,
    check_given,
    check_number,
    check_points,
    check_seed,
    exact,
    wide,
)
from pacavit.errors import RecipeError

__all__ = ["COVARIANCES", "GaussianMixtureResult", "gaussian_mixture"]

COVARIANCES = ("diag", "spherical", "full")


class GaussianMixtureResult(NamedTuple):
    """The result of :func:`gaussian_mixture`.

    Attributes:
        labels: (B, N) int64, the most probable component of each point; -1 at padding.
        responsibilities: (B, N, M), probabilities of the components; 0 at padding.
        weights: (B, M), sum 1.
        means: (B, M, C).
        covariances: (B, M, C) for "diag", (B, M) for "spherical", (B, M, C, C) for "full".
        lower_bound: (B,), mean log-likelihood of a point in the last E step of the iteration.
        n_iter: (B,) int64, iterations run.
    """

    labels: Tensor
    responsibilities: Tensor
    weights: Tensor
    means: Tensor
    covariances: Tensor
    lower_bound: Tensor
    n_iter: Tensor


class Mixture(NamedTuple):
    """Parameters of a mixture.

    Attributes:
        weights: (B, M).
        means: (B, M, C).
        covariances: (B, M, C) for "diag", (B, M) for "spherical", (B, M, C, C) for "full".
        factors: square roots of their inverses, of the same shape; for "full" triangular with
            inverse = factor @ factor.T.
    """

    weights: Tensor
    means: Tensor
    covariances: Tensor
    factors: Tensor


class Rules(NamedTuple):
    """How expectation maximization runs.

    Attributes:
        covariance_type: "diag", "spherical" or "full".
        reg_covar: added to all variances.
        max_iter: iterations at most.
        tol: change of the bound at which an image is finished; None: never.
        temperature: see :func:`expectation`.
    """

    covariance_type: str
    reg_covar: float
    max_iter: int
    tol: float | None
    temperature: float = 1.0


class Fit(NamedTuple):
    """The result of :func:`fit`.

    Attributes:
        mixture: the last one.
        bound: (B,), mean log-likelihood of a point in the last E step.
        rounds: (B,) int64, iterations run.
        responsibilities: (B, M, N), probabilities of the components, 0 at padding; or None.
    """

    mixture: Mixture
    bound: Tensor
    rounds: Tensor
    responsibilities: Tensor | None


@exact
def gaussian_mixture(
    x: Tensor,
    n_components: int,
    *,
    covariance_type: str = "diag",
    init: str | Tensor = "k-means++",
    weights_init: Tensor | None = None,
    means_init: Tensor | None = None,
    precisions_init: Tensor | None = None,
    max_iter: int = 100,
    tol: float | None = 1e-3,
    reg_covar: float = 1e-6,
    random_state: int = 0,
    mask: Tensor | None = None,
) -> GaussianMixtureResult:
    """A Gaussian mixture for each image of a batch on its own.

    The same responsibilities and bounds as ``sklearn.mixture.GaussianMixture`` with the same three
    ``*_init``. In float32, an image whose groups are so far apart that rounding would show is
    computed in float64. No gradients.

    Args:
        x: (B, N, C) points; half precision is computed in fp32.
        n_components: M.
        covariance_type: "diag", "spherical" or "full".
        init: where a k-means clustering starts, from which the parameters that are not given below
            are estimated; see :func:`~pacavit.clustering.functional.kmeans`.
        weights_init: (B, M), sum 1.
        means_init: (B, M, C).
        precisions_init: inverse covariances, of the shape of the result's ``covariances``.
        max_iter: iterations at most.
        tol: an image is finished when its bound changes by less; None: always run ``max_iter``
            iterations.
        reg_covar: added to all variances.
        random_state: seed of the k-means start.
        mask: (B, N) bool, False where a point is padding.

    Returns:
        labels, responsibilities, weights, means, covariances, lower_bound, n_iter.

    Raises:
        RecipeError: an option out of range, features that are NaN or infinite, or covariances that
            are not positive definite.
        ValueError: shapes that do not fit.

    Examples:
        >>> import torch
        >>> x = torch.tensor([[[0.0], [1.0], [10.0], [11.0]]])
        >>> gaussian_mixture(x, 2, init="farthest").labels
        tensor([[0, 0, 1, 1]])
    """
    check_count("n_components", n_components)
    check_count("max_iter", max_iter)
    check_number("reg_covar", reg_covar, least=0)
    check_seed("random_state", random_state)
    if tol is not None:
        check_number("tol", tol, least=0)
    check_choice("covariance_type", covariance_type, COVARIANCES)
    x, mask = check_points(x, mask)
    if weights_init is None or means_init is None or precisions_init is None:
        found = kmeans(x, n_components, init=init, random_state=random_state, mask=mask)
        hard = F.one_hot(found.labels.clamp(min=0), n_components).to(x)
        around, middle = center(wide(x), mask)
        mixture = maximize(around, hard.to(around), mask, covariance_type, reg_covar)
        mixture = mixture._replace(means=mixture.means + middle)
    else:
        unknown = x.new_empty(0)
        mixture = Mixture(unknown, unknown, unknown, unknown)
    shape = (x.shape[0], n_components)
    if weights_init is not None:
        weights = check_given("weights_init", weights_init, shape, x)
        if (weights < 0).any() or ((weights.sum(1) - 1).abs() > 1e-4).any():
            raise RecipeError("weights_init must be 0 or more, with the sum 1 in every image")
        mixture = mixture._replace(weights=weights)
    if means_init is not None:
        means = check_given("means_init", means_init, (*shape, x.shape[2]), x)
        mixture = mixture._replace(means=means)
    if precisions_init is not None:
        more = (x.shape[2],) * ("spherical", "diag", "full").index(covariance_type)
        precisions = check_given("precisions_init", precisions_init, (*shape, *more), x)
        mixture = _with_precisions(mixture, precisions, covariance_type)
    rules = Rules(covariance_type, reg_covar, max_iter, tol)
    mixture, bound, n_iter, own = fit(x, mixture, mask, rules, responsibilities=True)
    assert own is not None
    return GaussianMixtureResult(
        own.max(1).indices.masked_fill(~mask, -1),  # many times as fast as argmax
        own.transpose(1, 2).to(x),
        mixture.weights.to(x),
        mixture.means.to(x),
        mixture.covariances.to(x),
        bound.to(x),
        n_iter,
    )


def _with_precisions(mixture: Mixture, precisions: Tensor, covariance_type: str) -> Mixture:
    if covariance_type == "full":
        roots, failed = torch.linalg.cholesky_ex(precisions)
        uneven = not torch.allclose(precisions, precisions.transpose(2, 3))
        wrong, covariances = failed.any() or uneven, torch.cholesky_inverse(roots)
    else:
        wrong, roots, covariances = (precisions <= 0).any(), precisions.sqrt(), 1 / precisions
    if wrong:
        raise RecipeError("precisions_init is not symmetric and positive definite")
    return mixture._replace(covariances=covariances, factors=roots)


def fit(
    x: Tensor, mixture: Mixture, mask: Tensor, rules: Rules, *, responsibilities: bool = False
) -> Fit:
    """Rounds of expectation and maximization; the input is not checked.

    Args:
        x: (B, N, C), at least fp32, 0 at padding.
        mixture: to begin with.
        mask: (B, N) bool, False at padding.
        rules: of the iterations.
        responsibilities: compute those of the last mixture, too.

    Returns:
        A mixture and a bound in float64, see ``wide``.
    """
    diagonal = rules.covariance_type != "full"
    compiled = diagonal and x.device.type == "cpu" and not being_traced()
    return (fit_compiled if compiled else fit_tensors)(x, mixture, mask, rules, responsibilities)


def fit_compiled(x: Tensor, mixture: Mixture, mask: Tensor, rules: Rules, wanted: bool) -> Fit:
    """The same as :func:`fit` for "diag" and "spherical", by a compiled loop on the CPU."""
    from pacavit.clustering.functional import kernels

    spherical = rules.covariance_type == "spherical"
    variances = mixture.covariances
    variances = variances[..., None].expand_as(mixture.means) if spherical else variances
    weights, means, variances = parts = [
        each.to(torch.float64, memory_format=torch.contiguous_format, copy=True)
        for each in (mixture.weights, mixture.means, variances)
    ]
    bound, rounds = means.new_empty(len(x)), mask.new_empty(len(x), dtype=torch.int64)
    found = x.new_empty(len(x) if wanted else 0, weights.shape[1], x.shape[1])
    tol = -1.0 if rules.tol is None else float(rules.tol)
    numbers = (spherical, float(rules.reg_covar), rules.max_iter, tol, float(rules.temperature))
    arrays = (x.contiguous().numpy(), mask.numpy(), *(part.numpy() for part in parts))
    kernels.fit_mixtures(*arrays, numbers, bound.numpy(), rounds.numpy(), found.numpy())
    covariances = variances[..., 0] if spherical else variances
    factors = _inverse_roots(covariances, rules.covariance_type)
    mixture = Mixture(weights, means, covariances, factors)
    return Fit(mixture, bound, rounds, found if wanted else None)


def fit_tensors(x: Tensor, mixture: Mixture, mask: Tensor, rules: Rules, wanted: bool) -> Fit:
    """The same as :func:`fit`, by tensor operations."""
    covariance_type, reg_covar, max_iter, tol, temperature = rules
    x, middle = center(wide(x), mask)
    mixture = Mixture(*(part.to(x) for part in mixture))
    mixture = mixture._replace(means=mixture.means - middle)
    count = mask.sum(1)
    bound, rounds = x.new_full((x.shape[0],), -math.inf), count.new_full((x.shape[0],), max_iter)
    if tol is None:
        for _ in range(max_iter):
            likelihood, log_resp = expectation(x, mixture, covariance_type, temperature)
            bound = (likelihood * mask).sum(1) / count
            mixture = maximize(x, log_resp.exp(), mask, covariance_type, reg_covar)
    else:
        mixture = Mixture(*(part.clone() for part in mixture))
        going = torch.arange(x.shape[0], device=x.device)  # the images that are not finished
        for number in range(1, max_iter + 1):
            points, real = x[going], mask[going]
            current = Mixture(*(part[going] for part in mixture))
            likelihood, log_resp = expectation(points, current, covariance_type, temperature)
            new_bound = (likelihood * real).sum(1) / count[going]
            change = new_bound - bound[going]
            bound[going], rounds[going] = new_bound, number
            new = maximize(points, log_resp.exp(), real, covariance_type, reg_covar)
            for part, value in zip(mixture, new, strict=True):
                part[going] = value
            going = going[change.abs() >= tol]
            if not len(going):
                break
    found = None
    if wanted:
        found = expectation(x, mixture, covariance_type, temperature)[1].exp() * mask[..., None]
        found = found.transpose(1, 2)
    return Fit(mixture._replace(means=mixture.means + middle), bound, rounds, found)


def expectation(
    x: Tensor, mixture: Mixture, covariance_type: str, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Log-likelihoods (B, N) of points and the logarithm of their responsibilities (B, N, M).

    The temperature divides the logarithms of the joint densities: above 1, responsibilities are
    softer.
    """
    joint = log_densities(x, mixture, covariance_type) + mixture.weights.log()[:, None]
    joint = joint / temperature
    likelihood = joint.logsumexp(2)
    return likelihood, joint - likelihood[..., None]


def log_densities(x: Tensor, mixture: Mixture, covariance_type: str) -> Tensor:
    """Logarithm of the density of every component at every point: (B, N, M)."""
    means, factors, width = mixture.means, mixture.factors, x.shape[2]
    if covariance_type == "full":
        log_det = factors.diagonal(dim1=2, dim2=3).log().sum(2)
        shifted = x[:, None] @ factors - means[:, :, None] @ factors  # (B, M, N, C)
        square = shifted.square().sum(3).transpose(1, 2)
    else:
        if covariance_type == "spherical":
            log_det = width * factors.log()
            factors = factors[..., None].expand_as(means)
        else:
            log_det = factors.log().sum(2)
        precisions = factors.square()
        both = torch.cat([precisions, -2 * means * precisions], 2)
        constant = (means.square() * precisions).sum(2)[:, None]
        square = torch.baddbmm(constant, torch.cat([x.square(), x], 2), both.transpose(1, 2))
    return log_det[:, None] - 0.5 * (square + width * math.log(2 * math.pi))


def maximize(
    x: Tensor, responsibilities: Tensor, mask: Tensor, covariance_type: str, reg_covar: float
) -> Mixture:
    """The mixture that fits points (B, N, C) of given responsibilities (B, N, M) best.

    Raises:
        RecipeError: a covariance is not positive definite.
    """
    responsibilities = (responsibilities * mask[..., None]).transpose(1, 2)
    size = responsibilities.sum(2) + 10 * torch.finfo(x.dtype).eps
    if covariance_type == "full":
        means = responsibilities @ x / size[..., None]
        apart = x[:, None] - means[:, :, None]  # (B, M, N, C)
        covariances = (responsibilities[..., None] * apart).transpose(2, 3) @ apart
        covariances = covariances / size[..., None, None]
        covariances = covariances + reg_covar * torch.eye(x.shape[2]).to(x)
    else:
        moments = responsibilities @ torch.cat([x, x.square()], 2) / size[..., None]
        means, squares = moments.chunk(2, 2)
        covariances = (squares - means.square()).clamp(
            min=0
        ) + reg_covar  # 0 or more but for rounding
        if covariance_type == "spherical":
            covariances = covariances.mean(2)
    weights = size / size.sum(1, keepdim=True)
    return Mixture(weights, means, covariances, _inverse_roots(covariances, covariance_type))


def _inverse_roots(covariances: Tensor, covariance_type: str) -> Tensor:
    unchecked = covariances.device.type != "cpu" or being_traced()  # a look would have to wait
    if covariance_type != "full":
        if not unchecked and not (covariances > 0).all():
            raise RecipeError("a variance is not positive; increase reg_covar")
        return covariances.rsqrt()
    roots, failed = torch.linalg.cholesky_ex(covariances)
    if not unchecked and failed.any():
        raise RecipeError("a covariance is not positive definite; increase reg_covar")
    eye = torch.eye(covariances.shape[-1]).to(covariances).expand_as(roots)
    return torch.linalg.solve_triangular(roots, eye, upper=False).transpose(-1, -2)
