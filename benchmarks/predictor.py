"""How well is uptake predicted, and do the intervals hold?  A study on fresh phantom cohorts.

python benchmarks/predictor.py [--seeds 301 302 ...] [--sizes quick rasters] [--cases B11 ...]
                               [--ablate] [--width] [--folder DIR] [--json] [--pictures DIR]

For each size and seed a cohort is written, run and (for slides) its tissue classifier trained; then
each of --cases is held out in turn, the predictor trained on the others with the default settings,
and the case predicted and reviewed, all as the program does it.  What stands in ``metrics.json`` is
kept per held-out case in --folder; a study that was stopped goes on where it was.

Beside the figures of the program: the *ceiling of histology*, which is the phantom's own law with
every vessel perfused to the mean degree (perfusion is in no stain), seen by a scanner without
noise; the *noise-free PET*, which is the ceiling of anything; and the time of training with and
without the fits for the intervals.

With --pictures the curves of training, the coverage of each case and the errors of all methods are
drawn (``docs/images/predictor_*.png``).

With --ablate the networks are also trained without each part in turn, and the mean over the
held-out cases is printed (three seeds are enough; a part helps where the error rises without it).

With --width only the width that the small source model learns is printed: of the measured uptake,
of the phantom's law with and without its fall with depth, and of planted sources of known width.

Bars: share of the variance that the law explains >= 0.97 (rasters) and 0.90 (quick); clipped MAE
<= 0.060 and 0.075; no baseline better by its interval over all seeds; mean coverage 0.87 to 0.93
over at least 30 held-out cases.  Exit code 1 when one is missed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

BARS = {"quick": (0.90, 0.075), "rasters": (0.97, 0.060)}


def ended(work):
    """The result of a generator."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value


def cohort(folder: Path, size: str, seed: int):
    """The cases of a cohort with everything run that a training needs."""
    from napari_mosaik.io import Case
    from napari_mosaik.phantom import sample
    from napari_mosaik.workflow.classifier import retrain
    from napari_mosaik.workflow.recipe import read_recipe
    from napari_mosaik.workflow.run import run_until

    if not (folder / "written").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        ended(sample(folder, size, seed))
        (folder / "written").touch()
    cases = [Case(path.parent) for path in sorted(folder.glob("*/case.toml"))]
    if not (folder / "ready").is_file():
        for case in cases:
            ended(run_until(case, read_recipe(case.root)))
        if size != "rasters":
            ended(retrain([case for case in cases if case.name != "B11"], cases))
        for case in cases:
            ended(run_until(case, read_recipe(case.root)))
        (folder / "ready").touch()
    return cases


def scanned(
    case: str, size: str, seed: int, centres: np.ndarray, *, mean_perfusion: bool = False, **law
) -> np.ndarray:
    """(n,) SUV of the phantom's law, seen without noise, at tile centres (n, 2), µm.

    *law* changes its constants; with *mean_perfusion* every vessel is perfused to the mean degree.
    """
    from napari_mosaik.phantom.cohort import draw_specimen
    from napari_mosaik.phantom.physics import (
        ScannerLaw,
        UptakeLaw,
        patient_activity,
        pet_pose,
        simulate_scan,
        true_uptake,
    )

    specimen = draw_specimen(case, size, seed)
    vessels, own, scanner = specimen.vessels, UptakeLaw(**law), ScannerLaw(noise_share=0.0)
    if mean_perfusion:
        own = replace(own, delivery=own.delivery * float(vessels.perfused.mean()))
        vessels = replace(vessels, perfused=np.ones_like(vessels.perfused))
    uptake = true_uptake(specimen.anatomy, vessels, specimen.plan.patient, own)
    lattice, to_cd34 = pet_pose(specimen.plan, specimen.anatomy, scanner)
    pet, _ = simulate_scan(uptake, lattice, to_cd34, specimen.plan, seed, scanner)
    return pet.at(to_cd34.inverse().apply(centres)) / patient_activity(specimen.plan)


def widths(cases, name: str, size: str, seed: int) -> dict:
    """The width that `source_blur` learns of measured, simulated and planted uptake.

    Of each: the learnt width and the scanner's, mm, and the error on the case *name*, which did not
    train, over the 99.5th percentile of the training tiles.
    """
    from unittest.mock import patch

    from napari_mosaik.core.catalogue import TILES
    from napari_mosaik.predictor import TrainParams, source_blur
    from napari_mosaik.predictor.surroundings import Surroundings
    from napari_mosaik.workflow.cohort import scanner_width_um, training_inputs
    from napari_mosaik.workflow.correlations import choose_proxies_of

    cases = [*(one for one in cases if one.name != name), *(o for o in cases if o.name == name)]
    chosen = choose_proxies_of(cases[:-1]).proxies
    proxies = tuple(chosen.get(group, group) for group in ("vascular", "nuclear", "caix"))
    inputs = [training_inputs(one, proxies, TrainParams()) for one in cases]
    centres = [one.store.read(TILES).centres_um for one in cases]
    fwhm_um = scanner_width_um(cases[:-1])[0]

    def learnt(uptake, read=inputs) -> dict[str, float]:
        known = np.concatenate([values[np.isfinite(values)] for values in uptake[:-1]])
        targets = [values / np.percentile(known, 99.5) for values in uptake]
        seen = [Surroundings(one, fwhm_um) for one in read]
        found = source_blur.fit_source_blur(seen[:-1], targets[:-1])
        return {
            "learnt_mm": found.fwhm_um / 1000,
            "scanner_mm": fwhm_um / 1000,
            "mae": float(np.nanmean(np.abs(found.predict(seen[-1]) - targets[-1]))),
        }

    def drawn(**law) -> list[np.ndarray]:
        return [
            scanned(c.name, size, seed, at, **law) for c, at in zip(cases, centres, strict=True)
        ]

    measured = [one.suv for one in inputs]
    edge = [
        replace(
            one,
            features=np.column_stack([one.features, np.exp(-one.edge_um / 900)]),
            feature_names=(*one.feature_names, "distance to the edge"),
        )
        for one in inputs
    ]
    found: dict = {}
    sources, rng = planted(inputs), np.random.default_rng(0)
    for share in (0.7, 1.0, 1.3):
        uptake = [
            blurred(one, own, share * fwhm_um) for one, own in zip(inputs, sources, strict=True)
        ]
        found[f"planted sources, {share * fwhm_um / 1000:.3f} mm"] = learnt(uptake)
        if share == 1.0:
            noise = [
                0.03 * np.percentile(one, 99) * rng.standard_normal(len(one)) for one in uptake
            ]
            noisy = [one + more for one, more in zip(uptake, noise, strict=True)]
            found["planted sources, 3 % noise"] = learnt(noisy)
    found |= {
        "measured": learnt(measured),
        "measured, with the distance to the edge": learnt(measured, edge),
        "the law without noise": learnt(drawn()),
        "the law without pressure, without noise": learnt(drawn(pressure_beta=0.0)),
    }
    with patch.object(source_blur, "WIDEST", 1.0):
        found["measured, width held at the scanner's"] = learnt(measured)
    return found


def planted(inputs) -> list[np.ndarray]:
    """For each case a source ≥ 0 in its n tiles: a random function of their parameters."""
    from napari_mosaik.predictor.surroundings import column_statistics

    every = np.concatenate([one.features for one in inputs])
    median, mean, spread = column_statistics(every)
    weights = np.random.default_rng(0).standard_normal(every.shape[1]) / np.sqrt(every.shape[1])
    filled = [np.where(np.isfinite(one.features), one.features, median) for one in inputs]
    return [np.log1p(np.exp(((own - mean) / spread).clip(-4, 4) @ weights)) for own in filled]


def blurred(inputs, source: np.ndarray, fwhm_um: float) -> np.ndarray:
    """(n,) uptake of planted sources (n,): times tissue, seen through SciPy's Gaussian."""
    from scipy.ndimage import gaussian_filter

    cells = inputs.cells - inputs.cells.min(axis=0)
    raster = np.zeros(cells.max(axis=0) + 1)
    raster[tuple(cells.T)] = source * inputs.covered
    pitch = np.ptp(inputs.centres_um, axis=0) / np.ptp(inputs.cells, axis=0)
    return gaussian_filter(raster, fwhm_um / 2.3548 / pitch, mode="constant")[tuple(cells.T)]


def held_out(cases, name: str, size: str, seed: int) -> dict:
    """Figures of one held-out case."""
    from napari_mosaik.core.catalogue import METRICS, PREDICTION_RECORD, TILES, UPTAKE
    from napari_mosaik.predictor import TrainedModel, TrainParams
    from napari_mosaik.predictor.metrics import error_metrics
    from napari_mosaik.workflow.cohort import train_network
    from napari_mosaik.workflow.recipe import read_recipe
    from napari_mosaik.workflow.run import run_until

    (case,) = (one for one in cases if one.name == name)
    started = time.monotonic()
    model = ended(train_network(cases, name, TrainParams()))
    seconds = time.monotonic() - started
    card = TrainedModel.load(case.model_folder(model)).card
    started = time.monotonic()
    ended(run_until(case, read_recipe(case.root)))
    predicting = time.monotonic() - started
    metrics, record = case.store.read(METRICS), case.store.read(PREDICTION_RECORD)
    measured = np.asarray(case.store.read(UPTAKE)["suv"], float)
    target = record["target"]
    centres = case.store.read(TILES).centres_um

    def normalised(suv):
        return (suv - target["low"]) / (target["high"] - target["low"])

    def of_law(mean_perfusion: bool) -> dict:
        law = scanned(name, size, seed, centres, mean_perfusion=mean_perfusion)
        if record["unit"] != "g/mL":
            # body surface instead of weight: one factor a patient
            law = law * float(np.nanmean(measured) / np.nanmean(law))
        return error_metrics(normalised(measured), normalised(law))

    return {
        "size": size,
        "seed": seed,
        "case": name,
        "ceiling": of_law(mean_perfusion=True),
        "noise_free": of_law(mean_perfusion=False),
        "training_seconds": card["times"]["seconds"],
        "all_seconds": seconds,
        "prediction_seconds": predicting,
        "learnt_fwhm_mm": record["learnt_fwhm_mm"],
        "scanner_fwhm_mm": record["scanner_fwhm_mm"],
        "companion_weights": card["companion_weights"],
        "mean_intervals": mean_intervals(
            normalised(measured),
            [
                normalised(np.asarray(one.store.read(UPTAKE)["suv"], float))
                for one in cases
                if one.name != name
            ],
        ),
        **{
            key: metrics[key]
            for key in ("suv_norm", "suv_norm_clipped", "baselines", "intervals", "n_tiles",
                        "n_out_of_range")
        },
    }  # fmt: skip


def without_parts(cases, name: str) -> dict:
    """Errors of the networks of one held-out case, whole and without each part."""
    from napari_mosaik.predictor import TrainParams
    from napari_mosaik.workflow.cohort import ablate_network

    return ended(ablate_network(cases, name, TrainParams()))


def figures(folder: Path, name: str, size: str, seed: int, ablate: bool, kept: dict) -> dict:
    """Figures of one held-out case, from its files or made now; *kept* holds the cohort."""

    def of(word: str, make) -> dict:
        file = folder / f"{word}-{name}.json"
        if not file.is_file():
            if "cases" not in kept:
                kept["cases"] = cohort(folder, size, seed)
            file.write_text(json.dumps(make(kept["cases"]), indent=1))
        return json.loads(file.read_text())

    row = of("result", lambda cases: held_out(cases, name, size, seed))
    if ablate:
        row["ablation"] = of("ablation", lambda cases: without_parts(cases, name))
    return row


def mean_intervals(held: np.ndarray, training: list[np.ndarray]) -> dict[str, float]:
    """The 90 % interval of the training mean, from training cases held out like the predictor's.

    Values of the held-out case and of each training case, normalised SUV; NaN is excluded.
    """
    from napari_mosaik.predictor.uncertainty import conformal_quantile, interval_score

    known = [values[np.isfinite(values)] for values in training]
    residuals = [
        np.abs(values - np.concatenate([*known[:i], *known[i + 1 :]]).mean())
        for i, values in enumerate(known)
    ]
    half = conformal_quantile(np.concatenate(residuals))
    centre, held = float(np.concatenate(known).mean()), held[np.isfinite(held)]
    low, high = np.full(len(held), centre - half), np.full(len(held), centre + half)
    return {
        "coverage": float(np.mean((held >= low) & (held <= high))),
        "width": 2 * float(half),
        "interval_score": interval_score(held, low, high),
    }


def bootstrap(values) -> tuple[float, float, float]:
    """Mean and its 95 % interval over cases."""
    values = np.asarray(values, float)
    rng = np.random.default_rng(0)
    means = values[rng.integers(0, len(values), (4000, len(values)))].mean(axis=1)
    return float(values.mean()), *map(float, np.percentile(means, (2.5, 97.5)))


def summary(rows: list[dict]) -> dict:
    """Means over the held-out cases of one size."""
    names = sorted({name for row in rows for name, one in row["baselines"].items() if one})
    baselines = {}
    for name in names:
        own = [row["baselines"][name] for row in rows if row["baselines"].get(name)]
        mean, low, high = bootstrap([one["mae_minus_network"]["estimate"] for one in own])
        baselines[name] = {
            "mae": float(np.mean([one["mae"] for one in own])),
            "mae_minus_network": {"estimate": mean, "low": low, "high": high},
            "uses_test_pet": bool(own[0]["uses_test_pet"]),
        }
    shares = [row["suv_norm"]["r2"] / row["ceiling"]["r2"] for row in rows]
    found = {
        "n": len(rows),
        "mae": float(np.mean([row["suv_norm"]["mae"] for row in rows])),
        "mae_clipped": float(np.mean([row["suv_norm_clipped"]["mae"] for row in rows])),
        "r2": float(np.mean([row["suv_norm"]["r2"] for row in rows])),
        "ceiling_mae": float(np.mean([row["ceiling"]["mae"] for row in rows])),
        "ceiling_r2": float(np.mean([row["ceiling"]["r2"] for row in rows])),
        **{
            f"noise_free_{key}": float(np.mean([row["noise_free"][key] for row in rows]))
            for key in ("mae", "r2")
            if all("noise_free" in row for row in rows)  # results of before do not have it
        },
        "share_of_law": float(np.mean(shares)),
        "training_seconds": float(np.median([row["training_seconds"] for row in rows])),
        "all_seconds": float(np.median([row["all_seconds"] for row in rows])),
        "baselines": baselines,
    }
    for kind in ("tile", "block"):
        own = [one for row in rows if (one := (row["intervals"] or {}).get(kind))]
        if own:
            found[kind] = {
                "coverage": [one["coverage"] for one in own],
                "mean_coverage": float(np.mean([one["coverage"] for one in own])),
                "width": float(np.mean([one["width"] for one in own])),
                "interval_score": float(np.mean([one["interval_score"] for one in own])),
            }
    found["mean_interval_score"] = float(
        np.mean([row["mean_intervals"]["interval_score"] for row in rows])
    )
    cut = [row["ablation"] for row in rows if "ablation" in row]
    for part in cut[0]["without"] if cut else ():
        more = [one["without"][part]["mae_minus_whole"]["estimate"] for one in cut]
        mean, low, high = bootstrap(more)
        found.setdefault("without", {})[part] = {
            "mae": float(np.mean([one["without"][part]["mae"] for one in cut])),
            "mae_minus_whole": {"estimate": mean, "low": low, "high": high},
            "each": more,
        }
    if cut:
        found["networks_mae"] = float(np.mean([one["whole"]["mae"] for one in cut]))
    return found


def missed(size: str, one: dict) -> list[str]:
    """The bars that a size misses."""
    share, clipped = BARS[size]
    found = []
    if one["share_of_law"] < share:
        found.append(f"{size}: share of the law's variance {one['share_of_law']:.3f} < {share}")
    if one["mae_clipped"] > clipped:
        found.append(f"{size}: clipped MAE {one['mae_clipped']:.4f} > {clipped}")
    for name, other in one["baselines"].items():
        if not other["uses_test_pet"] and other["mae_minus_network"]["high"] < 0:
            found.append(f"{size}: {name} is better")
    if one["n"] >= 30 and "tile" in one and not 0.87 <= one["tile"]["mean_coverage"] <= 0.93:
        found.append(f"{size}: mean coverage {one['tile']['mean_coverage']:.3f}")
    return found


def show(size: str, one: dict) -> None:
    """Print the summary of one size."""
    print(f"\n{size}: {one['n']} held-out cases")
    for key in ("mae", "mae_clipped", "r2", "ceiling_mae", "ceiling_r2", "share_of_law",
                "noise_free_mae", "noise_free_r2"):  # fmt: skip
        if key in one:
            print(f"  {key:20s} {one[key]:.4f}")
    for name, other in sorted(one["baselines"].items(), key=lambda x: x[1]["mae"]):
        more = other["mae_minus_network"]
        print(
            f"  {name:20s} {other['mae']:.4f}  {more['estimate']:+.4f} "
            f"({more['low']:+.4f} to {more['high']:+.4f})"
        )
    for kind in ("tile", "block"):
        if kind in one:
            own = one[kind]
            print(
                f"  {kind}: coverage {own['mean_coverage']:.3f}, width {own['width']:.3f}, "
                f"interval score {own['interval_score']:.3f}"
            )
    if "without" in one:
        print(f"  networks alone       {one['networks_mae']:.4f}")
    for part, own in one.get("without", {}).items():
        more = own["mae_minus_whole"]
        print(
            f"  without {part:14s}{own['mae']:.4f}  {more['estimate']:+.4f} "
            f"(each {', '.join(f'{value:+.4f}' for value in own['each'])})"
        )
    print(f"  interval score of the training mean {one['mean_interval_score']:.3f}")
    print(f"  training {one['training_seconds']:.0f} s, in all {one['all_seconds']:.0f} s")


def draw(size: str, rows: list[dict], one: dict, source: Path, out: Path) -> None:
    """Pictures of a size: errors by method, coverage by case, curves of training."""
    from napari_mosaik.view.figure import new_figure, tidy
    from napari_mosaik.view.formatting import baseline_title

    def save(figure, name: str) -> None:
        out.mkdir(parents=True, exist_ok=True)
        figure.savefig(out / f"predictor_{size}_{name}.png", dpi=110)

    methods = sorted(
        (
            (other["mae"], other["mae_minus_network"], baseline_title(name))
            for name, other in one["baselines"].items()
            if not other["uses_test_pet"]
        ),
        key=lambda method: method[0],
    )
    figure = new_figure(6.4, 4.4)
    axes = tidy(figure.add_subplot(), "mean absolute error, normalised SUV", "")
    for place, (_, more, _) in enumerate(methods):
        low, high = (one["mae"] + more[side] for side in ("low", "high"))
        axes.plot([low, high], [place, place], color="0.6", lw=2)
    axes.plot([mae for mae, _, _ in methods], range(len(methods)), "o", color="tab:blue", ms=5)
    axes.axvline(one["mae"], color="tab:orange", label="predictor")
    axes.axvline(one["ceiling_mae"], color="0.3", ls="--", label="ceiling of histology")
    axes.set_yticks(range(len(methods)), [name for _, _, name in methods])
    axes.invert_yaxis()
    axes.legend(fontsize=8, frameon=False, loc="lower left")
    save(figure, "methods")

    known = [row["intervals"]["tile"] for row in rows if row["intervals"]]
    shares = sorted(one["coverage"] for one in known if one)
    figure = new_figure(6.4, 3.4)
    axes = tidy(figure.add_subplot(), "held-out case, by coverage", "tiles in their 90 % interval")
    axes.axhspan(0.87, 0.93, color="0.92", label="bar for the mean")
    axes.axhline(float(np.mean(shares)), color="tab:orange", label=f"mean {np.mean(shares):.2f}")
    axes.plot(range(1, len(shares) + 1), shares, "o", color="tab:blue", ms=5)
    axes.set_ylim(0, 1.03)
    axes.legend(fontsize=8, frameon=False, loc="lower right")
    save(figure, "coverage")

    figure = new_figure(6.4, 3.4)
    axes = tidy(figure.add_subplot(), "epoch", "training error, squared normalised SUV")
    for row in rows:
        for path in (source / f"{size}{row['seed']}" / row["case"] / "models").glob("*/card.json"):
            card = json.loads(path.read_text("utf-8"))
            members = {entry["member"] for entry in card.get("history", ()) if "suv_mse" in entry}
            for member in sorted(members):
                own = [entry for entry in card["history"] if entry["member"] == member]
                axes.semilogy(
                    [entry["epoch"] for entry in own],
                    [entry["suv_mse"] for entry in own],
                    color="tab:blue",
                    lw=0.6,
                    alpha=0.35,
                )
    save(figure, "training")


def show_widths(args) -> None:
    """Print the learnt widths of each size, seed and held-out case."""
    for size, seed, name in itertools.product(args.sizes, args.seeds, args.cases):
        found = widths(cohort(args.folder / f"{size}{seed}", size, seed), name, size, seed)
        print(f"{size} {seed} {name}")
        for words, one in found.items():
            share = one["learnt_mm"] / one["scanner_mm"]
            print(
                f"  {words:42s} {one['learnt_mm']:.3f} mm, {share:.3f} of the scanner's, "
                f"MAE {one['mae']:.4f}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[301, 302, 303, 304, 305])
    parser.add_argument("--sizes", nargs="+", default=["quick", "rasters"], choices=tuple(BARS))
    parser.add_argument("--cases", nargs="+", default=["A2", "A3", "A4", "A5", "B8", "B11"])
    parser.add_argument("--ablate", action="store_true")
    parser.add_argument("--width", action="store_true")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "predictor")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--pictures", type=Path)
    args = parser.parse_args()
    if args.width:
        show_widths(args)
        return
    result: dict = {"seeds": args.seeds, "sizes": {}, "missed": []}
    for size in args.sizes:
        rows = []
        for seed in args.seeds:
            folder = args.folder / f"{size}{seed}"
            kept: dict = {}
            for name in args.cases:
                rows.append(figures(folder, name, size, seed, args.ablate, kept))
                print(
                    f"{size} {seed} {name}: MAE {rows[-1]['suv_norm']['mae']:.4f}, "
                    f"ceiling {rows[-1]['ceiling']['mae']:.4f}",
                    file=sys.stderr,
                )
        result["sizes"][size] = summary(rows)
        result["missed"] += missed(size, result["sizes"][size])
        if args.pictures:
            draw(size, rows, result["sizes"][size], args.folder, args.pictures)
    if args.json:
        print(json.dumps(result, indent=1))
    else:
        for size, one in result["sizes"].items():
            show(size, one)
        print("\n" + ("\n".join(result["missed"]) or "no bar is missed"))
    sys.exit(1 if result["missed"] else 0)


if __name__ == "__main__":
    main()
