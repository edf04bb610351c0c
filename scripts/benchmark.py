"""Measure cost: compilation, attention, models, training, analysis; time, memory and arithmetic.

Times are medians over repetitions with the device synchronized, without compilation.
The machine should be idle otherwise. With --out each row is written at once.
"""

import functools

import command
import jax
import tyro
from benchmarks.analysis import interventions, similarity
from benchmarks.models import attention, compile_time, model
from benchmarks.training import feed, train

jax.config.update('jax_enable_compilation_cache', False)  # a program read from disk is not compiled

SUBJECTS = {
    'compile': compile_time, 'attention': attention, 'model': model, 'train': train, 'feed': feed,
    'similarity': similarity, 'intervene': interventions,
}  # fmt: skip

if __name__ == '__main__':
    checked = {name: command.checked(main) for name, main in SUBJECTS.items()}
    parse = functools.partial(command.parse, cli=tyro.extras.subcommand_cli_from_dict)
    command.guard(lambda: parse(checked, description=__doc__)())
