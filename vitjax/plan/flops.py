"""Floating-point operations of any jax function, from its jaxpr, with scans counted in full.

Counts the multiplications and additions of matrix products and convolutions, two per multiply-add:
twice the published GMACs. XLA's cost analysis and
`flax.linen.tabulate` count the body of a scan once, whatever the depth of the stack.
"""

import dataclasses
import functools
import math
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn
from jax.interpreters import partial_eval

from vitjax.base.types import Module, Params

# Kernels whose products no jaxpr contains.
_OPAQUE = ('pallas_call', 'ffi_call', 'dot_product_attention', 'ragged_dot', 'custom_linear_solve')


def flops(fn: Callable[..., Any], *args: Any) -> int:
    """Floating-point operations of `fn(*args)`, 2 per multiply-add of a product.

    Products are matrix products and convolutions. Scans count in full, conditionals by their
    largest branch, code mapped over devices once per device. Recomputation under `jax.checkpoint`
    counts as often as it runs. CaiT's attention mixes its heads by sums, which do not count, except
    under `capture`; `model_flops` counts that mixing and no recomputation. Zeros that pad a
    convolution count, as in published numbers. The holes of a dilation do not, so a convolution's
    gradients cost as much as the convolution.

    Args:
        fn: any function that jax can trace, also a gradient or a jitted function.
        *args: its arguments, as arrays or `jax.ShapeDtypeStruct`; nothing is computed.

    Raises:
        ValueError: if a while loop of unknown length contains products, or a kernel hides them
            (cuDNN's attention, Pallas); it names them.

    Example:
        >>> flops(lambda x, w: x @ w, jnp.ones((2, 3)), jnp.ones((3, 5)))
        60
    """
    return sum(flops_by_scope(fn, *args).values())


def flops_by_scope(fn: Callable[..., Any], *args: Any, estimate: bool = False) -> dict[str, int]:
    """`flops` by named scope; linen opens one for each module: `{'ViT/blocks/mlp/hidden': ...}`.

    `estimate` counts what `flops` refuses. A while loop of unknown length counts as one pass.
    Kernels count by their arithmetic, under `SCOPE/pallas_call` and the like: cuDNN's attention as
    two products and its gradient as five, a Pallas kernel as its body times the steps of its grid.
    """
    return dict(_count(jax.make_jaxpr(fn)(*args).jaxpr, estimate=estimate))


def executed_flops(fn: Callable[..., Any], *args: Any) -> int:
    """`flops` without products that no result depends on, which compilers remove.

    A hand-written gradient computes a part for each argument, frozen parameters included.

    >>> executed_flops(lambda x: (x @ x, x)[1], jnp.ones((2, 2)))
    0
    """
    whole = jax.make_jaxpr(fn)(*args).jaxpr
    live, _ = partial_eval.dce_jaxpr(whole, [True] * len(whole.outvars))
    return _count(live).total()


@dataclasses.dataclass(frozen=True)
class Counted:
    """Stand-in for a model whose operations are counted.

    It runs explicit attention without recomputation, for any setting of the model, so that all
    implementations have the same number. Heads are mixed by products.

    Attributes:
        model: a linen module.
    """

    model: Module

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def apply(self, *args: Any, **kwargs: Any) -> Any:
        """The module's `apply`, without its captures."""
        settings = {'attention': 'explicit', 'remat': False}
        fields = vars(self.model)  # a foreign module's `attention` may be of another type
        settings = {k: v for k, v in settings.items() if type(fields.get(k)) is type(v)}
        # Explicit attention under capture recomputes nothing.
        model = self.model.clone(**settings)
        return model.apply(*args, mutable=['intermediates'], **kwargs)[0]


def model_flops(model: Module, image_size: int, *, backward: bool = False) -> int:
    """`flops` of one square image through a model, `Counted`, and optionally of the gradient.

    Args:
        model: a module called as `model.apply({'params': params}, images)`.
        image_size: side of the image in pixels.
        backward: count forward and backward pass.
    """
    return sum(model_flops_by_scope(model, image_size, backward=backward).values())


def model_flops_by_scope(
    model: Module, image_size: int, *, backward: bool = False
) -> dict[str, int]:
    """`model_flops` by named scope, as in `flops_by_scope`."""
    image = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x), image)

    def run(params: Params, image: jax.Array) -> jax.Array:
        return Counted(model).apply({'params': params}, image).sum()

    fn = jax.value_and_grad(run) if backward else run
    return flops_by_scope(fn, variables['params'], image)


def _count(jaxpr: Jaxpr, scope: tuple[str, ...] = (), *, estimate: bool = False) -> Counter[str]:
    total: Counter[str] = Counter()
    for eqn in jaxpr.eqns:
        name = eqn.primitive.name
        inside = (*scope, *filter(None, [str(eqn.source_info.name_stack)]))
        count = functools.partial(_count, scope=inside, estimate=estimate)
        if name == 'dot_general':
            total['/'.join(inside)] += _dot(eqn)
        elif name == 'conv_general_dilated':
            total['/'.join(inside)] += _convolution(eqn)
        elif estimate and name.startswith(('pallas_call', 'dot_product_attention')):
            total['/'.join((*inside, name))] += _kernel(eqn)
        elif name.startswith(_OPAQUE):
            raise ValueError(f'flops cannot see into {name}: count an explicit implementation.')
        elif name == 'while':
            parts = count(eqn.params['body_jaxpr'].jaxpr) + count(eqn.params['cond_jaxpr'].jaxpr)
            if parts and not estimate:
                raise ValueError(
                    'flops needs loops of known length: a while loop holds the products of '
                    f'{", ".join(parts)}.'
                )
            total += parts
        elif name == 'cond':
            branches = [count(branch.jaxpr) for branch in eqn.params['branches']]
            total += max(branches, key=Counter.total)
        else:
            times = _repeats(eqn)
            for inner in _jaxprs(eqn.params):
                for part, operations in count(inner).items():
                    total[part] += times * operations
    return total


def _kernel(eqn: Any) -> int:
    if eqn.primitive.name == 'pallas_call':
        steps = math.prod(eqn.params['grid_mapping'].grid)
        return steps * _count(eqn.params['jaxpr'], estimate=True).total()
    queries, keys = eqn.invars[:2]
    product = 2 * queries.aval.size * keys.aval.shape[1]  # [B, T, N, H] and [B, S, K, H]
    return product * (5 if 'bwd' in eqn.primitive.name else 2)


def _repeats(eqn: JaxprEqn) -> int:
    if eqn.primitive.name == 'scan':
        return eqn.params['length']
    if eqn.primitive.name == 'shard_map':  # the body is one device's shard
        return eqn.params['mesh'].size
    return eqn.params.get('axis_size', 1) if eqn.primitive.name == 'xla_pmap' else 1


def _jaxprs(params: dict[str, Any]) -> Iterator[Jaxpr]:
    for item in jax.tree.leaves(list(params.values())):
        if isinstance(item, ClosedJaxpr | Jaxpr):
            yield item.jaxpr if isinstance(item, ClosedJaxpr) else item


def _dot(eqn: Any) -> int:
    (contracted, _), _ = eqn.params['dimension_numbers']
    shape = eqn.invars[0].aval.shape
    return 2 * eqn.outvars[0].aval.size * math.prod(shape[i] for i in contracted)


def _convolution(eqn: Any) -> int:
    """Operations of a convolution: per spatial axis, kernel taps times the fewer positions.

    A forward convolution has fewer outputs than inputs. The gradient at its input has more; the
    surplus outputs of each tap read holes or padding.
    """
    numbers = eqn.params['dimension_numbers']
    lhs, rhs = (v.aval.shape for v in eqn.invars)
    out = eqn.outvars[0].aval.shape
    total = 2 * out[numbers.out_spec[0]] * out[numbers.out_spec[1]] * rhs[numbers.rhs_spec[1]]
    axes = zip(numbers.lhs_spec[2:], numbers.rhs_spec[2:], numbers.out_spec[2:], strict=True)
    for i, k, o in axes:
        total *= rhs[k] * min(lhs[i], out[o])
    return total
