"""Text files in the encodings that other programs write."""

import pytest

from napari_mosaik.core.errors import InputError
from napari_mosaik.core.text import counted, read_text

TEXT = '{"class": "Müllers Drüse, 5 µm"}\n'


@pytest.mark.parametrize(
    "encoding",
    ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1", "cp1252"],
)
def test_every_usual_encoding_gives_the_same_text(tmp_path, encoding):
    path = tmp_path / "file.json"
    path.write_bytes(TEXT.encode(encoding))
    assert read_text(path) == TEXT


@pytest.mark.parametrize(("text", "encoding"), [("Опухоль", "cp1251"), ("腫瘍", "cp932")])
def test_letters_of_an_unstated_code_page_are_refused(tmp_path, text, encoding):
    path = tmp_path / "file.json"
    path.write_bytes(f'{{"class": "{text}"}}'.encode(encoding))
    with pytest.raises(InputError, match=r"file\.json is not text in UTF-8 .* save it as UTF-8"):
        read_text(path)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.csv cannot be read: no such file"):
        read_text(tmp_path / "none.csv")


def test_a_long_file_is_decoded_in_one_go(tmp_path):
    path = tmp_path / "long.txt"
    path.write_bytes(("ä" + "x" * 100).encode("latin-1") * 20_000)
    assert len(read_text(path)) == 101 * 20_000


def test_a_number_stands_before_its_singular_or_plural():
    assert [counted(n, "tile") for n in (0, 1, 2)] == ["0 tiles", "1 tile", "2 tiles"]
    assert counted(1, "tile has", "tiles have") == "1 tile has"
    assert counted(5, "tile has", "tiles have") == "5 tiles have"
