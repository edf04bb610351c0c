import report
from helpers import TINY

from vitjax import loop


def test_the_command_writes_a_page(tmp_path, capsys):
    loop.train(TINY, tmp_path / 'run', quiet=True)
    report.main((str(tmp_path / 'run'),), out=str(tmp_path / 'of' / 'a.html'), attention=False)
    assert capsys.readouterr().out == f'written: {tmp_path}/of/a.html\n'
    assert (tmp_path / 'of' / 'a.html').read_text().startswith('<!DOCTYPE html>')
