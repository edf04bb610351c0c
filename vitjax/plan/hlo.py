"""Costs that a compiled program states: bytes, collectives, kernels and cycles, by module.

XLA's own cost analysis counts the body of a loop once; here it counts as often as it runs. The
source is `compiled.as_text()`: the instructions of one device's part of the program, in the order
of execution.
"""

import dataclasses
import functools
import itertools
import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

COLLECTIVES = (
    'all-reduce', 'all-gather', 'reduce-scatter', 'all-to-all', 'ragged-all-to-all',
    'collective-permute', 'collective-broadcast',
)  # fmt: skip

# Custom calls for which a compiler states no cost: cuDNN's attention, and Pallas's two backends.
KERNELS = ('__cudnn$fmha', '__gpu$xla.gpu.triton', 'tpu_custom_call')

# Instructions that move nothing by themselves.
_FREE = {
    'parameter', 'constant', 'get-tuple-element', 'tuple', 'bitcast', 'after-all', 'partition-id',
    'replica-id', 'iota', 'opt-barrier', 'while', 'conditional', 'call',
}  # fmt: skip

_SLICES = ('dynamic-slice', 'slice', 'gather')
_VIEWS = ('bitcast', 'copy', 'reshape', 'convert')
_BOOKKEEPING = re.compile(r'custom_call_target="(AllocateBuffer|ConcatBitcast|Sharding)"')

# Path of the slices that a scan over layers takes out of stacks and puts into them: weights, and
# what the gradient needs.
STACKS = 'stacks along depth'
_STACKING = re.compile(r'jvp\(.*/while/body/.*dynamic_(update_)?(index|slice)')


class Collective(NamedTuple):
    """Collective instruction in one device's part of a program.

    Attributes:
        kind: one of `COLLECTIVES`.
        path: path of its module.
        arrays: its operands or results, whichever are larger: `('bf16[4096,197,384]',)`.
        bytes: size of those arrays, in one execution.
        times: number of executions.
    """

    kind: str
    path: str
    arrays: tuple[str, ...]
    bytes: int
    times: int


class Kernel(NamedTuple):
    """Custom call for which compilers state no cost; `bytes` are of all its executions."""

    target: str
    path: str
    bytes: int
    times: int


@dataclasses.dataclass
class Program:
    """Costs of one device's part of a compiled program; loops count as often as they run.

    Attributes:
        bytes: bytes read from and written to memory, by module path.
        cycles: cycles that the compiler estimates, by module path; empty if it estimates none.
        collectives: collectives in the order of execution.
        kernels: custom calls of `KERNELS`.
        unknown: number of loops whose trip count the program does not state; they count once.
    """

    bytes: Counter[str] = dataclasses.field(default_factory=Counter)
    cycles: Counter[str] = dataclasses.field(default_factory=Counter)
    collectives: list[Collective] = dataclasses.field(default_factory=list)
    kernels: list[Kernel] = dataclasses.field(default_factory=list)
    unknown: int = 0

    def add(self, other: 'Program') -> None:
        """Adds the costs of a part that runs next."""
        self.bytes.update(other.bytes)
        self.cycles.update(other.cycles)
        self.collectives += other.collectives
        self.kernels += other.kernels
        self.unknown += other.unknown


def read(text: str) -> Program:
    """Costs in the text of a compiled program, `compiled.as_text()`."""
    return _parse(text).costs(1)


def module_path(name: str) -> str:
    """Path of the module in an `op_name` or in a named scope of linen; '' outside of any.

    >>> module_path('jit(step)/transpose(jvp(ViT))/while/body/closed_call/blocks/mlp/hidden/dot')
    'blocks/mlp/hidden'
    """
    # A method other than __call__ is named with its module: qkv.thirds.
    parts = [part.partition('.')[0] for part in name.split('/')[:-1]]
    parts = [p for p in parts if re.fullmatch(r'[a-z_]\w*', p) and not _STRUCTURE.fullmatch(p)]
    # A hand-written gradient has its module's name twice: blocks/mlp/blocks/mlp/output/output.
    while parts[:1] and parts[0] in parts[1:]:
        parts = parts[parts.index(parts[0], 1) :]
    return '/'.join(part for part, _ in itertools.groupby(parts))


# Names that jax's transformations and control flow insert.
_STRUCTURE = re.compile(
    'while|body|cond|branch_[0-9]+_fun|closed_call|checkpoint|rematted_computation|scan|pjit|'
    'custom_jvp_call|custom_vjp_call|shard_map|core_call|remat|xla_pmap|eval_jaxpr'
)


# ---- Types --------------------------------------------------------------------------------------


class _Array(NamedTuple):
    text: str  # without its layout: f32[2,3]
    bytes: int
    in_memory: bool  # of the device; on TPU S(1) and above are on the chip, or the host's


_ARRAY = re.compile(r'\b([a-z]+\d*\w*)\[([\d,]*)\](?:\{([^}]*)\})?')


def _arrays(type: str) -> Iterator[_Array]:
    for dtype, dims, layout in _ARRAY.findall(type):
        bits = 8 if dtype == 'pred' else int((re.search(r'\d+', dtype) or ['0'])[0])
        size = math.prod(int(n) for n in dims.split(',') if n)
        space = re.search(r'S\((\d+)\)', layout)
        yield _Array(f'{dtype}[{dims}]', size * bits // 8, space is None or space[1] == '0')


def _bytes(type: str) -> int:
    """Bytes of a type in any memory."""
    return sum(array.bytes for array in _arrays(type))


def _memory(type: str) -> int:
    """Bytes of a type in the device's main memory."""
    return sum(array.bytes for array in _arrays(type) if array.in_memory)


# ---- Instructions -------------------------------------------------------------------------------

_CALLED = re.compile(
    r'(?:calls|body|condition|to_apply|true_computation|false_computation)=%?([\w.\-]+)'
)


class _Computation(dict[str, '_Instruction']):
    """Instructions of a computation by name, in the order of execution."""

    @property
    def root(self) -> '_Instruction':
        """Instruction whose result the computation returns."""
        return next(each for each in self.values() if each.is_root)

    def parameter(self, place: int) -> '_Instruction':
        """Parameter by position."""
        start = f'({place})'
        return next(
            each for each in self.values()
            if each.opcode == 'parameter' and each.rest.startswith(start)
        )  # fmt: skip

    def costs(self, times: int, within: str = '') -> Program:
        """Costs of the computation, run `times` times.

        An instruction without a module of its own belongs to the path `within`.
        """
        out = Program()
        for each in self.values():
            path = each.module or within
            if cycles := re.search(r'"estimated_cycles":"(\d+)"', each.rest):
                out.cycles[path] += times * int(cycles[1])
            if each.opcode in ('while', 'call'):
                trips = each.trips if each.opcode == 'while' else 1
                out.unknown += trips is None
                for computation in each.called:
                    out.add(computation.costs(times * (trips or 1), path))
            elif each.opcode == 'conditional':
                branches = [branch.costs(times) for branch in each.called]
                out.add(max(branches, key=lambda b: (b.cycles.total(), b.bytes.total())))
            out.collectives.extend(each.collectives(path, times))
            moved = times * each.moved
            out.bytes[path] += moved
            target = re.search(r'custom_call_target="([^"]*)"', each.rest)
            if target and target[1].startswith(KERNELS):
                out.kernels.append(Kernel(target[1], path, moved, times))
        return out


@dataclasses.dataclass(frozen=True, eq=False)
class _Instruction:
    """Instruction, linked with its operands and with the computations that it calls."""

    type: str
    opcode: str
    inside: str  # of its parentheses
    rest: str  # the text from the parentheses on
    is_root: bool
    computation: _Computation
    program: dict[str, _Computation]

    @functools.cached_property
    def operands(self) -> list['_Instruction']:
        names = re.findall(r'%([\w.\-]+)', self.inside)
        return [self.computation[name] for name in names if name in self.computation]

    @functools.cached_property
    def called(self) -> list[_Computation]:
        """Computations in the order of the text; a loop's condition comes before its body."""
        listed = re.search(r'branch_computations=\{([^}]*)\}', self.rest)
        names = re.findall(r'%?([\w.\-]+)', listed[1]) if listed else _CALLED.findall(self.rest)
        return [self.program[name] for name in names]

    @functools.cached_property
    def own_path(self) -> str:
        """Path of the module in its `op_name`; '' without one."""
        name = re.search(r'op_name="([^"]*)"', self.rest)
        path = module_path(name[1]) if name else ''
        return STACKS if name and not path and _STACKING.search(name[1]) else path

    @property
    def module(self) -> str:
        """Path of its module; for an unnamed fusion, that of most of its instructions."""
        if self.own_path or self.opcode != 'fusion':
            return self.own_path
        paths = Counter(path for each in self.called[0].values() if (path := each.own_path))
        return next((path for path, _ in paths.most_common(1)), '')

    @property
    def trips(self) -> int | None:
        """Trip count of a loop: as the compiler states, or the constant that its counter ends at.

        None if neither is there.
        """
        if stated := re.search(r'"known_trip_count":\{"n":"(\d+)"', self.rest):
            return int(stated[1])
        last = self.called[0].root
        if last.opcode != 'compare' or 'direction=LT' not in last.rest:
            return None
        end = last.operands[1]
        return int(end.inside[1:-1]) if end.opcode == 'constant' else None

    def collectives(self, path: str, times: int) -> Iterator[Collective]:
        """Collectives in an instruction of the module `path`."""
        if self.opcode in ('fusion', 'async-start'):  # TPU fuses collectives with what feeds them
            for computation in self.called:
                for each in computation.values():
                    yield from each.collectives(each.own_path or path, times)
        # Of an asynchronous pair the end counts, because its type is the result alone.
        kind, operands = self.opcode.removesuffix('-done'), self.operands
        if kind not in COLLECTIVES:
            return
        if self.opcode != kind:
            path, operands = path or operands[0].own_path, operands[0].operands
        taken = [array for operand in operands for array in _arrays(operand.type)]
        larger = max(taken, [*_arrays(self.type)], key=lambda arrays: sum(a.bytes for a in arrays))
        texts, sizes, _ = zip(*larger, strict=True)
        yield Collective(kind, path, texts, sum(sizes), times)

    @property
    def moved(self) -> int:
        """Bytes that one execution reads from memory and writes to it."""
        opcode, types = self.opcode, [operand.type for operand in self.operands]
        if opcode in _FREE or opcode.endswith('-done') or _BOOKKEEPING.search(self.rest):
            return 0
        if opcode == 'slice-start':
            return min(_memory(types[0]), [*_arrays(self.type)][1].bytes)
        if opcode.endswith('-start'):  # its type holds both ends
            return _memory(self.type)
        if opcode == 'fusion':
            sizes = enumerate(map(_memory, types))
            read = (self.called[0].parameter(place).bytes_read(size) for place, size in sizes)
            return sum(read) + self.bytes_written
        if opcode in _SLICES:
            return 2 * min(_memory(types[0]), _memory(self.type))
        if opcode == 'dynamic-update-slice':
            return 2 * _memory(types[1])
        return sum(map(_memory, types)) + _memory(self.type)

    # A scan's body takes its layer's slice of each stacked array and writes one into others. If
    # fusions counted their arrays in full, each layer would read a whole stack of twelve.

    def bytes_read(self, whole: int) -> int:
        """Bytes that a fusion reads of this parameter, of `whole` bytes, or of a view of it."""
        total = 0
        for user in self.computation.values():
            if self not in user.operands:
                continue
            place = user.operands.index(self)
            if user.opcode in _SLICES and place == 0:
                total += _bytes(user.type)
            elif user.opcode in _VIEWS and not user.is_root:
                total += user.bytes_read(whole)
            elif user.opcode == 'fusion':
                total += user.called[0].parameter(place).bytes_read(whole)
            elif user.opcode != 'dynamic-update-slice' or place > 0:  # else updated in place
                total += whole
        return min(total, whole)

    @property
    def bytes_written(self) -> int:
        """Bytes of a fusion's results; for an array updated in place, those of the update."""
        root = self.called[0].root
        roots = root.operands if root.opcode == 'tuple' else [root]
        total = 0
        for part, array in zip(roots, _arrays(self.type), strict=False):
            while part.opcode in (*_VIEWS, 'fusion'):
                part = part.called[0].root if part.opcode == 'fusion' else part.operands[0]
            size = array.bytes
            if part.opcode == 'dynamic-update-slice':
                size = min(size, _bytes(part.operands[1].type))
            total += size if array.in_memory else 0
        return total


# ---- Text ---------------------------------------------------------------------------------------

_HEADER = re.compile(r'^(ENTRY )?%?([\w.\-]+) \(.*\{$')
_LINE = re.compile(r'^\s+(ROOT )?%?([\w.\-]+) = (.*)$')
_OPCODE = re.compile(r'\s*([a-z][a-z0-9\-]*)\(')


def _parse(text: str) -> _Computation:
    """The entry computation, linked with all others."""
    program: dict[str, _Computation] = {}
    entry = current = _Computation()
    for line in text.splitlines():
        if header := _HEADER.match(line):
            current = program[header[2]] = _Computation()
            entry = current if header[1] else entry
        elif found := _LINE.match(line):
            root, name, rest = found.groups()
            # A type is f32[2]{0:T(8)}, or a tuple of those in parentheses.
            end = len(_balanced(rest)) if rest.startswith('(') else rest.index(' ')
            if opcode := _OPCODE.match(rest, end):
                call = rest[opcode.end() - 1 :]
                current[name] = _Instruction(
                    rest[:end], opcode[1], _balanced(call), call, bool(root), current, program
                )
    return entry


def _balanced(text: str) -> str:
    """The parentheses that a text starts with, and what is in them."""
    depth = 0
    for match in re.finditer(r'[()]', text):
        depth += 1 if match[0] == '(' else -1
        if not depth:
            return text[: match.end()]
    return text
