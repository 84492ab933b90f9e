import numpy as np
import pytest

from napari_mosaik.core import InputError, Lattice, TileGrid
from napari_mosaik.spatial import TileGraph, as_tile_graph


def make_grid(rows, cols, kept=None):
    kept = np.arange(rows * cols) if kept is None else np.asarray(kept)
    lattice = Lattice("cd34", (rows, cols), (300.0, 300.0))
    return TileGrid(lattice, 400.0, kept, np.ones(kept.size), np.ones(kept.size, bool))


def test_moore_counts_three_five_and_eight_neighbours():
    graph = TileGraph.moore(make_grid(4, 5))
    count = graph.n_neighbours.reshape(4, 5)
    assert count[0, 0] == 3
    assert count[0, 2] == 5
    assert count[2, 2] == 8
    assert count.sum() == 2 * (4 * 4 + 3 * 5 + 2 * 3 * 4)


def test_moore_is_the_same_as_libpysal_queen_contiguity():
    geopandas = pytest.importorskip("geopandas")
    shapely = pytest.importorskip("shapely")
    from libpysal.graph import Graph

    kept = np.setdiff1d(np.arange(30), [7, 8, 13, 22])
    grid = make_grid(5, 6, kept)
    boxes = [shapely.box(c, r, c + 1, r + 1) for r, c in grid.cells]
    queen = Graph.build_contiguity(geopandas.GeoSeries(boxes), rook=False).transform("r")
    ours = TileGraph.moore(grid)
    np.testing.assert_allclose(ours.graph.sparse.todense(), queen.sparse.todense())
    values = np.random.default_rng(0).normal(size=kept.size)
    np.testing.assert_allclose(ours.lag(values), queen.lag(values))


def test_island_is_kept_and_counted_and_survives_the_round_trip():
    graph = TileGraph.moore(make_grid(5, 5, [0, 1, 12, 24]))
    assert graph.n_islands == 2
    assert graph.n_neighbours.tolist() == [1, 1, 0, 0]
    assert list(graph.graph.isolates) == [2, 3]
    back = TileGraph.from_libpysal(graph.graph)
    np.testing.assert_array_equal(back.starts, graph.starts)
    np.testing.assert_array_equal(back.neighbours, graph.neighbours)


def test_rows_are_standardised_again_among_valid_tiles():
    graph = TileGraph.moore(make_grid(3, 3)).among(np.arange(9) != 4)
    assert len(graph) == 8
    np.testing.assert_allclose(np.add.reduceat(graph.weights, graph.starts[:-1]), 1.0)
    assert graph.n_neighbours[0] == 2


def test_something_else_is_refused():
    with pytest.raises(InputError, match="libpysal"):
        as_tile_graph(np.eye(3))
