"""``python -m napari_mosaik`` is the command line."""

from napari_mosaik.cli import main

if __name__ == "__main__":
    main()
