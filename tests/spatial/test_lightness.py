import subprocess
import sys


def test_names_are_imported_without_the_heavy_libraries():
    code = (
        "import sys, napari_mosaik.spatial, napari_mosaik.kinetics;"
        "heavy = {'numba', 'pandas', 'libpysal', 'esda', 'scipy', 'torch'} & set(sys.modules);"
        "sys.exit(' '.join(sorted(heavy)) or 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
