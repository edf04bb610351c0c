"""What a compiled program says of itself: bytes, collectives, kernels and cycles, by module.

XLA's own cost analysis counts the body of a loop once; here it counts as often as it runs. Read
from `compiled.as_text()`: the instructions of each device's share, in the order that they run.
"""

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


class Collective(NamedTuple):
    """What one collective instruction sends, in one device's share of the program.

    Attributes:
        kind: one of `COLLECTIVES`.
        path: of the module that it belongs to.
        arrays: what it takes or gives, whichever is larger: `('bf16[4096,197,384]',)`.
        bytes: of those arrays, in one execution.
        times: executions.
    """

    kind: str
    path: str
    arrays: tuple[str, ...]
    bytes: int
    times: int


class Kernel(NamedTuple):
    """A custom call for which compilers state no cost; `bytes` are of all its executions."""

    target: str
    path: str
    bytes: int
    times: int


class Program(NamedTuple):
    """One device's share of a compiled program; loops count as often as they run.

    Attributes:
        bytes: read from and written to memory, by module path.
        cycles: that the compiler estimates, by module path; empty where it estimates none.
        collectives: in the order that they run.
        kernels: custom calls of `KERNELS`.
        unknown: loops whose number of passes the program does not state; they count once.
    """

    bytes: Counter[str]
    cycles: Counter[str]
    collectives: list[Collective]
    kernels: list[Kernel]
    unknown: int


class _Instruction(NamedTuple):
    name: str
    type: str
    opcode: str
    operands: tuple[str, ...]
    rest: str  # attributes, and the operands as they are written
    root: bool


_Computation = dict[str, _Instruction]

# For a path: what a scan over layers takes out of stacks and puts into them, weights and what the
# gradient needs.
STACKS = 'stacks along depth'
_STACKING = re.compile(r'jvp\(.*/while/body/.*dynamic_(update_)?(index|slice)')


def read(text: str) -> Program:
    """Reads the text of a compiled program.

    Args:
        text: what `compiled.as_text()` gives.
    """
    computations, entry = _parse(text)
    out = Program(Counter(), Counter(), [], [], 0)
    unknown = _walk(computations, entry, 1, out)
    return out._replace(unknown=unknown)


def module_path(name: str) -> str:
    """The path of the module in an `op_name` or in a named scope of linen; '' outside of any.

    >>> module_path('jit(step)/transpose(jvp(ViT))/while/body/closed_call/blocks/mlp/hidden/dot')
    'blocks/mlp/hidden'
    """
    # A method other than __call__ is named with its module: qkv.thirds.
    parts = [part.partition('.')[0] for part in name.split('/')[:-1]]
    parts = [part for part in parts if re.fullmatch(r'[a-z_]\w*', part)]
    parts = [part for part in parts if not _STRUCTURE.fullmatch(part)]
    # A hand-written gradient has its module's name twice: blocks/mlp/blocks/mlp/output/output.
    while parts[:1] and parts[0] in parts[1:]:
        parts = parts[parts.index(parts[0], 1) :]
    return '/'.join(part for part, _ in itertools.groupby(parts))


# What jax's transformations and control flow leave in names.
_STRUCTURE = re.compile(
    'while|body|cond|branch_[0-9]+_fun|closed_call|checkpoint|rematted_computation|scan|pjit|'
    'custom_jvp_call|custom_vjp_call|shard_map|core_call|remat|xla_pmap|eval_jaxpr'
)

_HEADER = re.compile(r'^(ENTRY )?%?([\w.\-]+) \(.*\{$')
_LINE = re.compile(r'^\s+(ROOT )?%?([\w.\-]+) = (.*)$')
_OPCODE = re.compile(r'\s*([a-z][a-z0-9\-]*)\(')
_ARRAY = re.compile(r'\b([a-z]+\d*\w*)\[([\d,]*)\](?:\{([^}]*)\})?')
_CALLED = re.compile(
    r'(?:calls|body|condition|to_apply|true_computation|false_computation)=%?([\w.\-]+)'
)


def _parse(text: str) -> tuple[dict[str, _Computation], str]:
    computations: dict[str, _Computation] = {}
    entry, current = '', {}
    for line in text.splitlines():
        if not line.startswith(' '):
            header = _HEADER.match(line)
            if header:
                current = computations[header[2]] = {}
                entry = header[2] if header[1] else entry
        elif found := _LINE.match(line):
            root, name, rest = found.groups()
            end = _end_of_type(rest)
            opcode = _OPCODE.match(rest, end)
            if opcode:
                inside = _balanced(rest, opcode.end() - 1)
                operands = tuple(re.findall(r'%([\w.\-]+)', inside))
                current[name] = _Instruction(
                    name, rest[:end], opcode[1], operands, rest[opcode.end() - 1 :], bool(root)
                )
    return computations, entry


def _end_of_type(rest: str) -> int:
    """Where the type ends that a line starts with: `f32[2]{0:T(8)}`, or a tuple of those."""
    return len(_balanced(rest, 0)) if rest.startswith('(') else rest.index(' ')


def _balanced(text: str, start: int) -> str:
    depth = 0
    for match in re.finditer(r'[()]', text[start:]):
        depth += 1 if match[0] == '(' else -1
        if not depth:
            return text[start : start + match.end()]
    return text[start:]


def _arrays(type: str) -> Iterator[tuple[str, int, bool]]:
    """Of each array of a type its text, its bytes, and whether it is in the device's main memory.

    On TPU `S(1)` and above in a layout are memories on the chip, or the host's.
    """
    for dtype, dims, layout in _ARRAY.findall(type):
        bits = 8 if dtype == 'pred' else int((re.search(r'\d+', dtype) or ['0'])[0])
        size = math.prod(int(n) for n in dims.split(',') if n)
        space = re.search(r'S\((\d+)\)', layout)
        yield f'{dtype}[{dims}]', size * bits // 8, space is None or space[1] == '0'


def _bytes(type: str) -> int:
    """Bytes of a type, wherever it is."""
    return sum(size for _, size, _ in _arrays(type))


def _size(type: str) -> int:
    """Bytes of a type in the device's main memory."""
    return sum(size for _, size, main in _arrays(type) if main)


def _walk(
    computations: dict[str, _Computation], name: str, times: int, out: Program, within: str = ''
) -> int:
    """Adds a computation that runs `times` times; the number of loops of unknown length in it.

    What has no path of its own belongs to the one that it runs `within`.
    """
    unknown, computation = 0, computations[name]
    for instruction in computation.values():
        opcode, rest = instruction.opcode, instruction.rest
        path = _path(instruction) or _path_inside(computations, instruction) or within
        if cycles := re.search(r'"estimated_cycles":"(\d+)"', rest):
            out.cycles[path] += times * int(cycles[1])
        if opcode == 'while':
            trips = _trips(computations, rest)
            unknown += trips is None
            for called in _CALLED.findall(rest):
                unknown += _walk(computations, called, times * (trips or 1), out, path)
        elif opcode == 'conditional':
            unknown += _walk_branches(computations, rest, times, out)
        elif opcode == 'call':
            for called in _CALLED.findall(rest):
                unknown += _walk(computations, called, times, out, path)
        out.collectives.extend(_collectives(computations, computation, instruction, path, times))
        moved = times * _moved(computations, computation, instruction)
        out.bytes[path] += moved
        target = re.search(r'custom_call_target="([^"]*)"', rest)
        if target and target[1].startswith(KERNELS):
            out.kernels.append(Kernel(target[1], path, moved, times))
    return unknown


def _path(instruction: _Instruction) -> str:
    name = re.search(r'op_name="([^"]*)"', instruction.rest)
    path = module_path(name[1]) if name else ''
    return STACKS if name and not path and _STACKING.search(name[1]) else path


def _path_inside(computations: dict[str, _Computation], instruction: _Instruction) -> str:
    """Where most of a fusion comes from that has no name of its own; '' for other instructions."""
    if instruction.opcode != 'fusion':
        return ''
    called = computations[_CALLED.findall(instruction.rest)[0]]
    paths = Counter(path for inner in called.values() if (path := _path(inner)))
    return max(paths, key=lambda path: paths[path], default='')


def _walk_branches(
    computations: dict[str, _Computation], rest: str, times: int, out: Program
) -> int:
    """Adds the branch that costs most."""
    listed = re.search(r'branch_computations=\{([^}]*)\}', rest)
    names = re.findall(r'%?([\w.\-]+)', listed[1]) if listed else _CALLED.findall(rest)
    tried = []
    for name in names:
        branch = Program(Counter(), Counter(), [], [], 0)
        unknown = _walk(computations, name, times, branch)
        tried.append((branch.cycles.total(), branch.bytes.total(), unknown, branch))
    *_, unknown, branch = max(tried, key=lambda each: each[:2])
    out.bytes.update(branch.bytes)
    out.cycles.update(branch.cycles)
    out.collectives.extend(branch.collectives)
    out.kernels.extend(branch.kernels)
    return unknown


def _trips(computations: dict[str, _Computation], rest: str) -> int | None:
    """How often a loop runs: as the compiler states, or the constant that its counter ends at."""
    if stated := re.search(r'"known_trip_count":\{"n":"(\d+)"', rest):
        return int(stated[1])
    name = re.search(r'condition=%?([\w.\-]+)', rest)
    condition = computations[name[1]] if name else {}
    for last in condition.values():
        if last.root and last.opcode == 'compare' and 'direction=LT' in last.rest:
            end = condition[last.operands[1]]
            return int(end.rest.split(')')[0][1:]) if end.opcode == 'constant' else None
    return None


def _collectives(
    computations: dict[str, _Computation],
    computation: _Computation,
    instruction: _Instruction,
    path: str,
    times: int,
) -> Iterator[Collective]:
    opcode = instruction.opcode
    if opcode in ('fusion', 'async-start'):  # TPU fuses collectives with what feeds them
        for called in _CALLED.findall(instruction.rest):
            inside = computations[called]
            for inner in inside.values():
                yield from _collectives(computations, inside, inner, _path(inner) or path, times)
        return
    kind = opcode.removesuffix('-done')  # of the pair of an asynchronous one, as its type is plain
    if kind not in COLLECTIVES:
        return
    operands = [computation[name] for name in instruction.operands if name in computation]
    if opcode.endswith('-done'):
        path = path or _path(operands[0])
        operands = [computation[n] for n in operands[0].operands if n in computation]
    taken = [array for operand in operands for array in _arrays(operand.type)]
    given = list(_arrays(instruction.type))
    larger = max(taken, given, key=lambda arrays: sum(size for _, size, _ in arrays))
    texts, sizes, _ = zip(*larger, strict=True)
    yield Collective(kind, path, texts, sum(sizes), times)


def _moved(
    computations: dict[str, _Computation], computation: _Computation, instruction: _Instruction
) -> int:
    """Bytes that an instruction reads from memory and writes to it, once."""
    opcode = instruction.opcode
    types = [computation[n].type if n in computation else '' for n in instruction.operands]
    if opcode in _FREE or opcode.endswith('-done') or _BOOKKEEPING.search(instruction.rest):
        return 0
    if opcode == 'slice-start':
        return min(_size(types[0]), list(_arrays(instruction.type))[1][1])
    if opcode.endswith('-start'):  # its type holds both ends
        return _size(instruction.type)
    if opcode == 'fusion':
        called = computations[_CALLED.findall(instruction.rest)[0]]
        read = (_read(computations, called, i, _size(type)) for i, type in enumerate(types))
        return sum(read) + _written(computations, called, instruction.type)
    if opcode in _SLICES:
        return 2 * min(_size(types[0]), _size(instruction.type))
    if opcode == 'dynamic-update-slice':
        return 2 * _size(types[1])
    return sum(map(_size, types)) + _size(instruction.type)


# A scan's body takes its layer's slice of each stacked array and writes one into others: if fusions
# counted their arrays in full, a stack of twelve layers would be read twelve times by each layer.


def _read(
    computations: dict[str, _Computation], called: _Computation, place: int, whole: int
) -> int:
    """Bytes of a parameter of `whole` bytes that a fusion reads."""

    def by_users(name: str) -> int:
        total = 0
        for user in called.values():
            if name not in user.operands:
                continue
            at = user.operands.index(name)
            if user.opcode in _SLICES and at == 0:
                total += _bytes(user.type)
            elif user.opcode in _VIEWS and not user.root:
                total += by_users(user.name)
            elif user.opcode == 'fusion':
                inside = computations[_CALLED.findall(user.rest)[0]]
                total += _read(computations, inside, at, whole)
            elif not (user.opcode == 'dynamic-update-slice' and at == 0):  # updated in place
                total += whole
        return min(total, whole)

    for inner in called.values():
        if inner.opcode == 'parameter' and inner.rest.startswith(f'({place})'):
            return by_users(inner.name)
    return whole


def _written(computations: dict[str, _Computation], called: _Computation, result: str) -> int:
    """Bytes of a fusion's results; of an array updated in place, those of the update."""
    root = next(each for each in called.values() if each.root)
    roots = [called[name] for name in root.operands] if root.opcode == 'tuple' else [root]
    total = 0
    for part, (_, size, main) in zip(roots, _arrays(result), strict=False):
        inside = called
        while part.opcode in (*_VIEWS, 'fusion'):
            if part.opcode == 'fusion':
                inside = computations[_CALLED.findall(part.rest)[0]]
                part = next(each for each in inside.values() if each.root)
            else:
                part = inside[part.operands[0]]
        if part.opcode == 'dynamic-update-slice':
            size = min(size, _bytes(inside[part.operands[1]].type))
        total += size if main else 0
    return total
