"""A doubt is one line on standard error."""

from napari_mosaik.cli.common import report_warning


def test_a_doubt_is_one_line_on_standard_error(capsys):
    report_warning("the weight 24.5 kg\n  is implausible for a mouse")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        "napari-mosaik: warning: the weight 24.5 kg is implausible for a mouse\n"
    )
