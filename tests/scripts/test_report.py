import report
from helpers import TINY

from vitjax import loop


def test_the_command_writes_a_page(tmp_path, capsys):
    loop.train(TINY, tmp_path / 'run', quiet=True)
    report.main((str(tmp_path / 'run'),), out=str(tmp_path / 'of' / 'a.html'), attention=False)
    *parts, last = capsys.readouterr().out.splitlines()
    assert last == f'written: {tmp_path}/of/a.html'
    assert [line.split()[0] for line in parts] == [f'[{i}/8]' for i in range(1, 9)]
    assert (tmp_path / 'of' / 'a.html').read_text().startswith('<!DOCTYPE html>')
