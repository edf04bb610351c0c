"""Damage to files, from a seed, and what a user sees of it."""

import random


def _bit(data, rng):
    place = rng.randrange(8 * len(data))
    data[place // 8] ^= 1 << place % 8


def _bits(data, rng):
    for _ in range(20):
        _bit(data, rng)


def _zeros(data, rng):
    start = rng.randrange(len(data))
    data[start : start + 512] = bytes(len(data[start : start + 512]))


def _cut(data, rng):
    del data[rng.randrange(len(data)) :]


def _longer(data, rng):
    data += rng.randbytes(rng.randrange(1, 600))


def _empty(data, rng):
    data.clear()


def _noise(data, rng):
    data[:] = rng.randbytes(len(data))


KINDS = {
    'a bit': _bit, '20 bits': _bits, '512 zeros': _zeros, 'cut short': _cut, 'longer': _longer,
    'empty': _empty, 'noise': _noise, 'deleted': None,
}  # fmt: skip


def damage(path, kind, seed):
    """Damages a file; returns whether it is another one now."""
    before = path.read_bytes()
    change = KINDS[kind]
    if change is None:
        path.unlink()
        return True
    data = bytearray(before)
    if data or kind == 'longer':
        change(data, random.Random(seed))
    path.write_bytes(data)
    return bytes(data) != before


def files_of(folder):
    return sorted(p.relative_to(folder) for p in folder.rglob('*') if p.is_file())


def every(folder, repeats=1):
    """A damage of each kind to each file: (name, kind, seed)."""
    found = [(name, kind) for name in files_of(folder) for kind in KINDS]
    return [(name, kind, seed) for seed in range(repeats) for name, kind in found]


def some(folder, count, seed=0):
    """As many of `every`, at random."""
    return random.Random(seed).sample(every(folder, 3), count)


class Tally:
    """Count of faults by their outcome."""

    def __init__(self):
        self.right = self.said = self.refused = 0

    def judge(self, capfd, call, same):
        """Runs what a command does.

        It must return what is the `same`, saying nothing or a line or two, or raise what commands
        print as a line or two. Everything else is a fault of ours.
        """
        capfd.readouterr()
        value = error = None
        try:
            value = call()
        except (ValueError, OSError) as raised:
            error = str(raised)
        out, err = capfd.readouterr()
        lines = (out + err).splitlines()
        assert 'Traceback' not in out + err, err
        assert len(lines) <= 2, err
        assert all(line.startswith('warning: ') for line in lines), err
        if error is not None:
            assert 1 <= len(error.splitlines()) <= 2, error
            self.refused += 1
            return error
        assert same(value), lines
        self.said += bool(lines)
        self.right += not lines
        return None

    def row(self, what):
        """For the table that the tests print at their end."""
        return what, self.right + self.said + self.refused, self.right, self.said, self.refused
