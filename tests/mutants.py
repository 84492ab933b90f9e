"""Small faults put into the science, one at a time: does a test notice each?

python tests/mutants.py [--only WORD] [--state FILE] [--again] [--list] [--seconds N]

Each fault changes one text of a file in a copy of the tree, runs the related tests there and puts
the text back.  Results are kept in the state file, so a run that ends early goes on later; --again
forgets them.  A text that no longer occurs exactly once is an error: the list follows the code.
Prints the survivors, and ends with 1 if there is one or an error.  Not part of ``make test``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "src/napari_mosaik/"


@dataclass(frozen=True, slots=True)
class Fault:
    """One text of a file of the package, what replaces it, and the tests that should notice."""

    file: str
    old: str
    new: str
    tests: str

    @property
    def key(self) -> str:
        """A name that changes with the fault."""
        content = hashlib.blake2b(repr((self.old, self.new, self.tests)).encode(), digest_size=4)
        return f"{self.file}:{content.hexdigest()}"

    def __str__(self) -> str:
        return f"{self.file}: {self.old!r} -> {self.new!r}"


def _of(file: str, tests: str, *texts: tuple[str, str]) -> Iterator[Fault]:
    for old, new in texts:
        yield Fault(file, old, new, tests)


def faults() -> list[Fault]:
    """All faults, file by file."""
    found: list[Fault] = []
    found += _of(
        "spatial/moran.py",
        "tests/spatial/test_moran.py",
        ('return 2 if params.sided == "two" else 1', "return 1"),
        ("level * np.arange(1, p.size + 1)", "level * np.arange(p.size)"),
        ("p[passed[-1]]", "p[passed[0]]"),
        ("factor * (tail + 1) / (drawn + 1)", "factor * tail / (drawn + 1)"),
        (
            "params.q) if params.fdr else params.alpha",
            "params.alpha) if params.fdr else params.alpha",
        ),
        ("(1, -1): HIGH_LOW, (-1, 1): LOW_HIGH", "(1, -1): LOW_HIGH, (-1, 1): HIGH_LOW"),
        ("(1, 1): HOT, (-1, -1): COLD", "(1, 1): COLD, (-1, -1): HOT"),
        ("label[~(p <= cut)] = AVERAGE", "label[~(p < cut)] = AVERAGE"),
        ("expected = -z2 / (n - 1)", "expected = -z2 / n"),
        ("z2 * n / (n - 2) *", "z2 * n / (n - 1) *"),
        ("-1.0 / (tiles.z.size - 1)", "-1.0 / tiles.z.size"),
        (
            "math.ceil(_factor(params) * tiles.tested.size / params.q - 1e-6) - 1",
            "math.ceil(tiles.tested.size / params.q - 1e-6) - 1",
        ),
    )
    found += _of(
        "spatial/interpolate.py",
        "tests/spatial/test_interpolate.py tests/predictor/test_baselines.py",
        ("weight = (nearest / distance) ** power", "weight = nearest / distance"),
        ("[:, 1:]  # without itself", "[:, :-1]  # without itself"),
        ("weight = distance**-2.0", "weight = distance**-1.0"),
        ("weight[at_node] = 0.0", "weight[at_node] = 1.0"),
        ("inside = mask.at(centres, 0.0) > 0.5", "inside = mask.at(centres, 0.0) > -1"),
    )
    found += _of(
        "spatial/association.py",
        "tests/spatial/test_association.py",
        ("distance <= 1.5 * np.median", "distance <= 1.2 * np.median"),
        ("np.fill_diagonal(weights, largest - degree)", "np.fill_diagonal(weights, 0.0)"),
        ("total[k, c] += 2.0 *", "total[k, c] += 1.0 *"),
        ("partners[j, k] += 1.0", "partners[j, k] += 0.0"),
        ("traces = np.diag(pairs) - 2 / n", "traces = np.diag(pairs) - 1 / n"),
        ("rankdata(values, axis=0)", "values"),
    )
    found += _of(
        "kinetics/immunokinetic.py",
        "tests/kinetics/test_immunokinetic.py",
        ("return self.bound_um + self.internalised_um", "return self.bound_um"),
        ("return self.stack() / reference_um", "return self.stack()"),
        (
            '    3.5e4, "Association rate; 3.5e10 per h and M."',
            '    3.5e3, "Association rate; 3.5e10 per h and M."',
        ),
        ('setting(0.3662, "Total surface antigen."', 'setting(0.4662, "Total surface antigen."'),
        (
            "solve_rows(kinetic_rows(immunokinetic_columns(params)), times)[0, :, :3]",
            "solve_rows(kinetic_rows(immunokinetic_columns(params)), times)[0, :, [0, 2, 1]].T",
        ),
    )
    found += _of(
        "kinetics/delivery.py",
        "tests/kinetics/test_delivery.py",
        (
            "self.mass_mg * 1e3 / self.molar_mass_g_per_mol",
            "self.mass_mg * 1e2 / self.molar_mass_g_per_mol",
        ),
        ("start_um * (1 - self.fast_fraction)", "start_um * self.fast_fraction"),
        ("stereology = 4 / math.pi if", "stereology = math.pi / 4 if"),
        ("share * positive + (1 - share) * negative", "positive"),
        ("inside += amplitude * rates[0] *", "inside += amplitude * rates[1] *"),
        ("out[empty] = _without_antigen(transfer[empty], params, times)", "out[empty] = 0.0"),
        ("transfer[:, None] / params.interstitial_fraction", "transfer[:, None]"),
        ("curves[:, 0, 1] + curves[:, 0, 2]", "curves[:, 0, 0] + curves[:, 0, 2]"),
        ("times**4 * h2 / 24", "times**4 * h2 / 12"),
    )
    found += _of(
        "uptake/suv.py",
        "tests/uptake/test_suv.py",
        ("2.0 ** (-elapsed_h / half_life_h)", "2.0 ** (elapsed_h / half_life_h)"),
        ("x / -math.expm1(-x)", "x / math.expm1(x)"),
        ("dose - record.residual_mbq * 1e6", "dose"),
        (
            'if mode == "ADMIN":\n        return 1.0, 1.0',
            'if mode == "ADMIN":\n        return 0.5, 1.0',
        ),
        ("return 1e4 * du_bois_bsa_m2", "return 1e3 * du_bois_bsa_m2"),
        ("on_image * measure / (dose * remaining)", "measure / (dose * remaining)"),
        ("return on_image * measure / (dose * remaining)", "return on_image * measure / dose"),
    )
    found += _of(
        "uptake/per_tile.py",
        "tests/uptake/test_tile_uptake.py",
        ("total >= min_inside * full", "total >= 0.0 * full"),
        ("weighted[valid] / total[valid]", "weighted[valid] / full[valid]"),
        ("for angle in (angle_deg, -angle_deg)", "for angle in (0.0, 0.0)"),
        (
            "((step, 0.0), (-step, 0.0), (0.0, step), (0.0, -step))",
            "((step, 0.0), (step, 0.0), (0.0, step), (0.0, step))",
        ),
        ("max(pet.lattice.spacing_um) * transform.scale if", "max(pet.lattice.spacing_um) if"),
        (
            "to_pet.apply(grid.corners_um[:, None] + square)) + 0.5",
            "to_pet.apply(grid.corners_um[:, None] + square))",
        ),
    )
    found += _of(
        "learning/engine.py",
        "tests/learning",
        ("= self.plan.learning_rate(step)", "= self.plan.learning_rate(0)"),
        (
            "nn.utils.clip_grad_norm_(self.network.parameters(), self.plan.max_gradient_norm)",
            "pass",
        ),
        ("mean.lerp_(value, share)", "mean.lerp_(value, 0.0)"),
        ("self.optimiser.zero_grad(set_to_none=True)", "pass"),
        ("all(score < value for value in earlier)", "all(score > value for value in earlier)"),
        ("0 < self.plan.patience <= self.epoch - self.best_epoch", "False"),
        ("np.random.default_rng([plan.seed, self.epoch])", "np.random.default_rng([plan.seed, 0])"),
        (
            "self.task.validate(self.mean, self.device)",
            "self.task.validate(self.network, self.device)",
        ),
        ('self.optimiser.load_state_dict(state["optimiser"])', "pass"),
        ("return self.best or self.mean.state_dict()", "return self.mean.state_dict()"),
    )
    found += _of(
        "predictor/metrics.py",
        "tests/predictor/test_metrics.py tests/workflow/test_review_step.py",
        ("np.mean((p - y) ** 2)", "np.mean((p - y) ** 2) ** 0.5"),
        ("np.mean(np.abs(p - y))", "abs(np.mean(p - y))"),
        (
            "y.mean() if reference is None else reference",
            "p.mean() if reference is None else reference",
        ),
        ("y.var() + p.var() + (y.mean() - p.mean()) ** 2", "y.var() + p.var()"),
        ("difference = p - y", "difference = y - p"),
        ("difference.std(ddof=1)", "difference.std()"),
        ('"low": bias - 1.96 * sd', '"low": bias - 1.69 * sd'),
        ('"high": bias + 1.96 * sd', '"high": bias + 1.69 * sd'),
        ("y.mean() - slope * p.mean()", "p.mean() - slope * y.mean()"),
        ("/ p.var())", "/ y.var())"),
        (
            'average="macro", zero_division=0))\n\n\ndef macro_f1',
            'average="micro", zero_division=0))\n\n\ndef macro_f1',
        ),
        ("(np.abs(b - y) - np.abs(a - y))[keep]", "(np.abs(a - y) - np.abs(b - y))[keep]"),
        ("[keep] // _BLOCK_TILES", "[keep] // 1"),
        ("[2.5, 97.5]", "[5.0, 95.0]"),
        ("np.clip(y[keep], 0, 1), np.clip(p[keep], 0, 1)", "y[keep], np.clip(p[keep], 0, 1)"),
        ('"n_not_predicted": int((~np.isfinite(p)).sum())', '"n_not_predicted": 0'),
    )
    found += _of(
        "predictor/surroundings.py",
        "tests/predictor/test_surroundings.py",
        ("self.fwhm_um * SIGMA_PER_FWHM / step", "self.fwhm_um / step"),
        ("known * inputs.covered[:, None]", "known * 1.0"),
        ("smooth(total)[rows, cols] / reached", "smooth(total)[rows, cols]"),
        ("truncate=CUT_SIGMA", "truncate=1.0"),
        ('values, box, axis=axis, mode="constant"', 'values, 1, axis=axis, mode="constant"'),
        ("known = np.isfinite(inputs.features)", "known = np.ones(inputs.features.shape, bool)"),
    )
    found += _of(
        "predictor/baselines.py",
        "tests/predictor/test_trees.py",
        ("asked <= self.threshold[at]", "asked > self.threshold[at]"),
        (
            "np.where(np.isnan(asked), self.missing_left[at], goes_left)",
            "np.where(np.isnan(asked), ~self.missing_left[at], goes_left)",
        ),
        ("np.where(np.isnan(columns).all(axis=0), 0.0, columns)", "columns"),
        ("tree.value[:, 0, 0], 0.0) / len(found)", "tree.value[:, 0, 0], 0.0)"),
    )
    found += _of(
        "predictor/baselines.py",
        "tests/predictor/test_baselines.py",
        ("last[:, _RETAINED].sum(axis=1, keepdims=True)", "last[:, :1].sum(axis=1, keepdims=True)"),
        (
            "inputs.tile_curves(np.arange(len(inputs)))[:, -1]",
            "inputs.tile_curves(np.arange(len(inputs)))[:, 0]",
        ),
        (
            "self.target.normalise(_suv(c)[c.inputs.measured], clip=False)",
            "self.target.normalise(_suv(c)[c.inputs.measured], clip=True)",
        ),
        (
            "-float(((model.predict(x) - target) ** 2).sum())",
            "float(((model.predict(x) - target) ** 2).sum())",
        ),
    )
    found += _of(
        "predictor/training_set.py",
        "tests/predictor/test_splits.py tests/predictor/test_training.py",
        ("_distance(cells, cells[test]) >= guard", "_distance(cells, cells[test]) >= guard - 1"),
        ("math.ceil(4.0 * sigma_um / pitch_um)", "math.ceil(2.0 * sigma_um / pitch_um)"),
        ("tuple(sorted(set(patients) - {test}))", "tuple(sorted(set(patients)))"),
        ("if patients[case] != patients[test]))", "if case != test))"),
        (
            "axis = int(np.argmax(np.ptp(cells, axis=0)))",
            "axis = int(np.argmin(np.ptp(cells, axis=0)))",
        ),
        ('tiles_digest(cells) != block["tiles"]', "False"),
        ("(N_CLASSES * np.maximum(counts, 1))", "np.maximum(counts, 1)"),
        ("np.where((label >= 0) & (label < N_CLASSES), label, -1)", "np.maximum(label, 0)"),
    )
    found += _of(
        "learning/devices.py",
        "tests/predictor/test_devices.py",
        ("if not is_out_of_memory(error):", "if False:"),
        ("self.batch_size //= 2", "self.batch_size = 1"),
        ('"backend out of memory" in str(error)', "False"),
        ("            moved()\n", "            pass\n"),
        ("name = _preferred[-1]", 'name = "auto"'),
        ("_preferred.pop()", "pass"),
    )
    found += _of(
        "predictor/training.py",
        "tests/predictor/test_devices.py",
        ("self.network.seen(scene, fused.float())", "self.network.seen(scene, fused)"),
        ("len(target) / size, own)", "len(target) / size)"),
        (
            "range(0, size, device.batch_size)",
            "range(0, min(size, device.batch_size), device.batch_size)",
        ),
        (
            "with torch.no_grad(), device.exact():\n            found = network(self._checked",
            "with torch.no_grad(), device.mixed():\n            found = network(self._checked",
        ),
        ('"device": device.description', '"device": "CPU"'),
        ('"notes": list(dict.fromkeys(device.notes))', '"notes": []'),
        ("task.plan(own, number), device)", "task.plan(own, number), network_device(params))"),
    )
    found += _of(
        "predictor/network.py",
        "tests/predictor/test_devices.py",
        (">= self.share).to(x.device)", ">= self.share)"),
        ("branch(scaled[None]).float()", "branch(scaled[None])"),
    )
    found += _of(
        "predictor/prediction.py",
        "tests/predictor/test_devices.py",
        ("network.to(device.device)(scene.to(device))", "network(scene)"),
        (
            "with torch.no_grad(), device.exact():\n            found",
            "with device.mixed():\n            found",
        ),
        ("min(_CHUNK, device.batch_size)", "max(_CHUNK, device.batch_size)"),
    )
    found += _of(
        "predictor/prediction.py",
        "tests/predictor/test_unusable.py",
        ("if not np.allclose(inputs.spacings_um, spacings_um, rtol=1e-3):", "if False:"),
        (
            'float(card["scales"][scale.name]["spacing_um"]) for scale in inputs.scales',
            'float(scale["spacing_um"]) for scale in card["scales"].values()',
        ),
        ('if card.get("classes", True)', "if True"),
        ("if not all(bool(values.isfinite().all())", "if not any(bool(values.isfinite().all())"),
        ('list(card["channels"]) != list(FRACTIONS)', "False"),
    )
    found += _of(
        "predictor/held_out.py",
        "tests/predictor/test_unusable.py",
        ('elif model.card["settings"]["intervals"]:', "elif True:"),
        ("except InputError as error:  # the other", "except ZeroDivisionError as error:  # the"),
    )
    found += _of(
        "predictor/training_range.py",
        "tests/predictor/test_uncertainty.py",
        ("cases = [case for case in cases if case.measured.any()]", "cases = list(cases)"),
        ("np.flatnonzero(case.measured)[own]", "own"),
        ("own = case == number", "own = case != number"),
        ("predicted[name][tile[own]]", "predicted[name][: own.sum()]"),
        ("distance / limit", "distance"),
    )
    found += _of(
        "predictor/input_spread.py",
        "tests/predictor/test_input_spread.py",
        ("drawn -= drawn.mean(axis=0)", "drawn -= 0.0"),
        ("np.linalg.solve(root, drawn.T).T", "drawn"),
        ("- chance * np.diag(inverse)[1:, None]", ""),
        ("y.mean(axis=1).std(ddof=1)", "y.std(axis=0).mean()"),
        ("parts[names == name].sum(axis=0)", "parts[names == name].max(axis=0)"),
    )
    found += _of(
        "workflow/drawn_inputs.py",
        "tests/workflow/test_input_spread.py",
        ("np.maximum(distance - border_um, 0.0)", "np.maximum(distance + border_um, 0.0)"),
        ("* self._tissue_um2 * ratio", "* self._tissue_um2 / ratio"),
        ("self._params.haematoxylin_factor * self", "2 * self._params.haematoxylin_factor * self"),
        ("math.exp(self._params.caix_factor *", "math.exp(-self._params.caix_factor *"),
        ("math.log(factor) / _Z95", "math.log(factor)"),
        ("params.vessel_border_um * self._draw", "params.nucleus_border_um * self._draw"),
        ("params.nucleus_border_um * self._draw", "params.vessel_border_um * self._draw"),
        ('sd * self._draw[f"{slide}_row"], ', 'sd * self._draw[f"{slide}_column"], '),
        (
            'for place, slide in ((1, "he"), (2, "caix"))',
            'for place, slide in ((2, "he"), (1, "caix"))',
        ),
        (
            "np.nan_to_num(drawn - self._nominal_curves)",
            "np.nan_to_num(self._nominal_curves - drawn)",
        ),
        ("np.clip(stored + change, 0.0, top)", "np.clip(stored - change, 0.0, top)"),
        ("self._nuclei_um[rows] + np.array", "self._nuclei_um[rows] - np.array"),
        ("self._cells_um + np.array", "self._cells_um - np.array"),
    )
    found += _of(
        "predictor/input_spread.py",
        "tests/workflow/test_input_spread.py",
        ("[one / scale.spacing_um for one", "[-one / scale.spacing_um for one"),
        ("values[..., 2] *= vessels", "values[..., 2] /= vessels"),
        ("cells = grid.cells - step", "cells = grid.cells + step"),
    )
    found += _of(
        "features/morphology.py",
        "tests/workflow/test_input_spread.py",
        ("border_um + math.pi * border_um**2", "border_um"),
    )
    found += _of(
        "predictor/training.py",
        "tests/predictor/test_unusable.py",
        (
            "np.any(known, axis=0), strict=True) if not some]",
            "np.all(known, axis=0), strict=True) if some]",
        ),
        (
            "for case in data.everything\n        if not case.measured.any()",
            "for case in data.everything\n        if case.measured.any()",
        ),
    )
    found += _of(
        "predictor/network.py",
        "tests/predictor/test_slide_network.py",
        (
            "torch.as_tensor(x + self.mix(functional.relu(self.wide(self.norm(x)))))",
            "torch.as_tensor(x)",
        ),
        (
            "place = self.position + self.proxy[:, None, :]",
            "place = 0 * self.position + self.proxy[:, None, :]",
        ),
        ("varied[..., None] * (", "0 * varied[..., None] * ("),
        (
            "onehot[:, :, middle] @ code + place[:, middle]",
            "onehot[:, :, 0] @ code + place[:, 0]",
        ),
        ("self.norm(pooled + fused)", "self.norm(fused)"),
        ("uptake = source * scene.lattice.covered", "uptake = source"),
        ("suv_norm = uptake + self.zero_suv", "suv_norm = uptake"),
        ("suv_norm[:, None].detach()", "suv_norm[:, None]"),
        ("torch.where(self.known_class > 0, logits, -torch.inf)", "logits"),
        ("parts.append(self.context(tissue))", "parts.append(tissue)"),
        (
            "self.context(self.heterogeneity(scene.codes, scene.variability))",
            "self.heterogeneity(scene.codes, scene.variability)",
        ),
        ("torch.cat([own, self.context(seen)], dim=1)", "torch.cat([own, seen], dim=1)"),
        (
            "torch.isfinite(columns), columns, self.column_median",
            "columns == columns, columns, 0.0",
        ),
        ("(filled - self.column_mean) / self.column_sd", "(filled - self.column_mean)"),
        ("torch.as_tensor(x * keep / (1 - self.share))", "torch.as_tensor(x * keep)"),
        ("return self.scanner_um * torch.exp(self.log_width)", "return self.scanner_um"),
        ("scaled = (values - mean[level, :, None, None])", "scaled = values"),
        ("corners[:, 0] + step // 2, step", "corners[:, 0], step"),
    )
    found += _of(
        "predictor/network.py",
        "tests/predictor/test_training.py tests/predictor/test_network.py",
        (
            "torch.as_tensor(x + self.mix(functional.relu(self.conv(self.norm(x)))))",
            "torch.as_tensor(x)",
        ),
        ("bound[:, -1], free[:, -1]", "bound[:, 0], free[:, 0]"),
        ("self.bound(curves[..., 1:])", "self.bound(curves[..., :2])"),
        ("self.free(curves[..., :1])", "self.free(curves[..., 2:])"),
        ("(windows.float() / 255.0 - mean) / sd", "windows.float() / 255.0"),
        ("torch.sigmoid(self.suv_head(fused).squeeze(1))", "self.suv_head(fused).squeeze(1)"),
    )
    found += _of(
        "predictor/training.py",
        "tests/predictor/test_slide_network.py",
        ("return base * (step + 1) / warm_up", "return base"),
        ("warm_up = max(1, total // 20)", "warm_up = max(1, total // 2)"),
        ("0.5 * (1 + math.cos(math.pi * (step", "0.5 * (1 + math.cos(0.5 * math.pi * (step"),
        (
            "min(self.params.ema_decay, (1 + step) / (10 + step))",
            "self.params.ema_decay",
        ),
        (
            "self.params.lambda_ * suv_loss + self.params.alpha * class_loss",
            "suv_loss + class_loss",
        ),
        ("logits[known], label[known], weight=weights)", "logits[known], label[known])"),
        ("len(which) * len(self.scenes) / len(data.tiles)", "1.0"),
        ("yield index, self.scenes[index].turned(turn)", "yield index, self.scenes[index]"),
        ('"weight_decay": 0.0, "rate_factor"', '"weight_decay": 0.01, "rate_factor"'),
        ("_WIDTH_RATE = 6.0", "_WIDTH_RATE = 1.0"),
        ("np.random.SeedSequence([seed, number])", "np.random.SeedSequence([seed, 1])"),
        ("torch.tensor(median, dtype=torch.float32)", "torch.zeros(len(median))"),
        ("zero = -data.scale.low / (data.scale.high - data.scale.low)", "zero = 0.0"),
        ("first = max(data.mean_target - zero, 0.05)", "first = 1.0"),
        ("float(self.network.scanner_um) * math.exp(width)", "float(self.network.scanner_um)"),
        ("order = rng.permutation(len(self.scenes))", "order = np.arange(len(self.scenes))"),
        ("epoch=step.epoch + number * params.epochs,", "epoch=step.epoch,"),
    )
    found += _of(
        "predictor/training.py",
        "tests/predictor/test_training.py tests/predictor/test_fine_tuning.py",
        ("_rotated(codes.numpy(), turns[all_rows])", "codes.numpy()"),
        ("_rotated(windows.numpy(), turns[all_rows])", "windows.numpy()"),
        ("part[..., ::-1] if turn >= 4 else part", "part"),
        ("round(replay / (1 - replay) * n_fresh)", "round(replay * n_fresh)"),
        ("math.log(share / (1 - share))", "0.0"),
        ("curve_sd[curve_sd <= 1e-6 * np.abs(curves).max(axis=0)] = 0.0", "pass"),
    )
    found += _of(
        "predictor/scene.py",
        "tests/predictor/test_slide_network.py",
        ("lattice.cells, source * lattice.covered)", "lattice.cells, source)"),
        ("* (offset.abs() <= CUT_SIGMA * sigma)", ""),
        ("bell = bell / bell.sum()", "bell = bell / bell.max()"),
        (
            "sigma = fwhm_um * SIGMA_PER_FWHM / lattice.pitch_um[axis]",
            "sigma = fwhm_um / lattice.pitch_um[axis]",
        ),
        ("other = 1.0 - (around * planes).sum(dim=1)", "other = (around * planes).sum(dim=1)"),
        ("count_include_pad=False", "count_include_pad=True"),
        ("row, col = width - window - col, row", "row, col = col, width - window - row"),
        ("turned, col = turned.flip(2), width - window - col", "turned, col = turned.flip(2), col"),
        ("(turned.flip(-1) if turn >= 4 else turned)", "turned"),
    )
    found += _of(
        "predictor/source_blur.py",
        "tests/predictor/test_source_blur.py",
        ("network(own), lattice, start * torch.exp(log_width)", "network(own), lattice, start"),
        ("start * float(torch.exp(log_width.detach()))", "start"),
        ("((seen[mask] - target) ** 2).sum()", "(seen[mask] - target).abs().sum()"),
        ("found = scanner_blur(source, lattice, width) if blur else source", "found = source"),
        ("            schedule.step()", "            pass"),
        ('np.where(np.isfinite(raw), raw, arrays["median"])', "np.nan_to_num(raw)"),
    )
    found += _of(
        "predictor/prediction.py",
        "tests/predictor/test_slide_network.py",
        ("(1 - sum(weights.values())) * np.mean(members, axis=0)", "np.mean(members, axis=0)"),
        ("np.mean(source, axis=0) * span", "np.mean(source, axis=0)"),
        ("np.mean(probability, axis=0), np.mean(source", "probability[0], np.mean(source"),
        ("probability[rows].argmax(axis=1)", "probability[rows].argmin(axis=1)"),
        ("members[:, rows] = found[0][:, rows]", "members[:] = found[0]"),
        ("suv_norm + weight * companion.predict(seen)", "suv_norm + companion.predict(seen)"),
    )
    found += _of(
        "predictor/uncertainty.py",
        "tests/predictor/test_uncertainty.py",
        ("math.ceil((len(values) + 1) * level - 1e-9)", "math.ceil(len(values) * level - 1e-9)"),
        ("2 / (1 - level) * outside", "1 / (1 - level) * outside"),
        ("np.maximum(a - y, 0) + np.maximum(y - b, 0)", "np.maximum(a - y, 0)"),
        ("_FLOOR * float(size.mean())", "0.0"),
        ("case.cells[known] // BLOCK_TILES", "case.cells[known] // 1"),
        ("scaled = len(cases) > 2 and following < fixed", "scaled = following > fixed"),
        ('"coverage": other if scaled else coverage', '"coverage": other'),
        ("if len(cases) < _FOR_CASES:", "if len(cases) < 2:"),
        (
            "(residual[first] - residual[second]) ** 2 / 2",
            "(residual[first] - residual[second]) ** 2",
        ),
        ("np.mean(means**2) - np.mean(within)", "np.mean(means**2)"),
        ("others = [other for other in cases if other is not case]", "others = list(cases)"),
        ('fields["case_sd"] * rng.standard_normal((n, 1))', "0.0"),
        ('fields["sd"] * field[', "field["),
        (
            "values - record[kind] * half, values + record[kind] * half",
            "values - half, values + half",
        ),
    )
    found += _of(
        "predictor/held_out.py",
        "tests/predictor/test_uncertainty.py",
        ("if sum(steps) > 5:", "if sum(steps) > 3:"),
        ("rest = [other for other in cases if other is not case]", "rest = list(cases)"),
        ("self.measured - predicted, predicted", "predicted - self.measured, predicted"),
    )
    found += _of(
        "predictor/inputs.py",
        "tests/predictor/test_inputs.py",
        ("distance[rows + 1, cols + 1]", "distance[rows, cols]"),
        ("np.pad(grid.index_map() >= 0, 1)", 'np.pad(grid.index_map() >= 0, 1, mode="edge")'),
        ("(CODE_CELLS)].transpose(0, 3, 1, 2)", "(CODE_CELLS)].transpose(0, 3, 2, 1)"),
    )
    found += _of(
        "predictor/multiscale.py",
        "tests/predictor/test_inputs.py",
        ("means += 1.0 - covered[0][part, None] * covered[1]", "means += 0.0"),
        ("np.rint(np.clip(means, 0, 1) * 255)", "np.clip(means, 0, 1) * 255"),
        ("(tiles - 1) * grid.stride_um + grid.size_um", "tiles * grid.stride_um"),
        ("layers[3] = 1.0 - layers[3]", "layers[3] = 0.0 * layers[3]"),
        ("blocks.mean(axis=(1, 3))", "blocks.max(axis=(1, 3))"),
    )
    found += _of(
        "predictor/training_range.py",
        "tests/predictor/test_uncertainty.py",
        ("if i != index]", "]"),
        ('far | (missing > record["n_missing"])', "far"),
    )
    found += _of(
        "workflow/steps/predict.py",
        "tests/workflow/test_predict_step.py",
        ("_WIDTH_RATIO = 1.33", "_WIDTH_RATIO = 1.5"),
        (
            "if 1 / _WIDTH_RATIO <= learnt / scanner <= _WIDTH_RATIO:",
            "if learnt / scanner <= _WIDTH_RATIO:",
        ),
        ("learnt, scanner = float(np.mean(widths))", "learnt, scanner = float(widths[0])"),
        ("outside & np.isfinite(prediction.suv_norm)", "outside"),
        ("limits.get(kind, (nothing, nothing))", 'limits.get(kind, limits["tile"])'),
        ('units.append("source")', "pass"),
    )
    found += _of(
        "workflow/steps/review.py",
        "tests/workflow/test_review_step.py",
        ('target.normalise(uptake["suv"], clip=False)', 'target.normalise(uptake["suv"])'),
        ('if not record["shared_patient"]:', "if False:"),
        ("uses_test_pet=(NEIGHBOURS,)", "uses_test_pet=()"),
        ('record["seen_in_training"] or bool(seen)', 'record["seen_in_training"]'),
        ('np.asarray(table["out_of_range"]).sum()', 'np.asarray(table["out_of_range"]).size'),
    )
    found += _of(
        "predictor/uncertainty.py",
        "tests/workflow/test_review_step.py",
        (
            "np.percentile(errors.mean(axis=1), [5.0, 95.0])",
            "np.percentile(errors.mean(axis=1), [2.5, 97.5])",
        ),
        ("errors.mean(axis=1)", "errors[:, 0] * 2"),
    )
    found += _of(
        "uptake/body_size.py",
        "tests/workflow/test_review_step.py",
        ("return float(factor**0.425)  # Du Bois", "return float(factor)"),
    )
    found += _of(
        "spatial/graph.py",
        "tests/spatial/test_graph.py tests/spatial/test_moran.py",
        ("weight / total[focal]", "weight"),
        ("weight = 1.0 / count if weight is None", "weight = 1.0 + 0 * count if weight is None"),
        ("math.fsum(centred**2) / values.size", "math.fsum(centred**2) / (values.size - 1)"),
        ("self.weights * values[self.neighbours]", "values[self.neighbours]"),
    )
    found += _of(
        "spatial/proxies.py",
        "tests/spatial/test_proxies.py tests/spatial/test_stability.py",
        ('if rule == "paper" or case not in test_cases', "if True or case not in test_cases"),
        (
            "both = np.abs([self.pearson, self.spearman])",
            "both = np.array([self.pearson, self.spearman])",
        ),
        ("row.missing, -row.score", "row.missing, row.score"),
        ("(np.abs(pearson) + np.abs(spearman)) / 2", "np.abs(pearson)"),
        ("/ block_um).astype(np.int64)", "/ 1.0).astype(np.int64)"),
    )
    found += _of(
        "kinetics/sensitivity.py",
        "tests/kinetics/test_sensitivity.py",
        ("slope @ slope.T / image_error**2", "slope @ slope.T / image_error"),
        ("np.diag(1 / sd**2)", "np.diag(1 / sd)"),
        ("after[i] <= DETERMINED * sd[i]", "after[i] <= sd[i]"),
        ("total = np.mean((a - mixed) ** 2, axis=1) / 2 / variance", "total = saltelli"),
        ("middle * np.exp(sd * ndtri(points))", "middle * np.exp(2 * sd * ndtri(points))"),
    )
    found += _of(
        "kinetics/diagnostics.py",
        "tests/kinetics/test_diagnostics.py tests/kinetics/test_sensitivity.py",
        ("free <= 0.01 * params.free_0_um", "free <= 0.1 * params.free_0_um"),
        ("float(times[bound[0]]) * 3600", "float(times[bound[0]]) * 60"),
        ("params.antigen_um / _ANTIGEN_FACTOR", "params.antigen_um * _ANTIGEN_FACTOR"),
        (
            "params.mass_mg * 1e3 / params.molar_mass_g_per_mol",
            "params.mass_mg / params.molar_mass_g_per_mol",
        ),
        ("np.log2(errors[0] / errors[1])", "np.log(errors[0] / errors[1])"),
    )
    found += _of(
        "kinetics/batched.py",
        "tests/kinetics/test_batched.py tests/kinetics/test_immunokinetic.py",
        ("wash, scale, by_step = p[4] / p[5]", "wash, scale, by_step = p[4]"),
        ("sites = p[1] - bound if p[13] else sites_0 + free", "sites = p[1] - bound"),
        ("p[8] * np.exp(-p[9] * t))", "p[8] * np.exp(-p[7] * t))"),
        ("_TOLERANCE = 3e-8", "_TOLERANCE = 3e-3"),
    )
    found += _of(
        "core/params.py",
        "tests/core/test_params.py",
        ('part.strip() for part in value.split(",")', 'part for part in value.split(";")'),
        ("if value.strip() else ()", "if value else ()"),
        ("return (value,) if isinstance(value, int | float) else value", "return value"),
    )
    found += _of(
        "workflow/held_out_block.py",
        "tests/workflow/test_review_step.py",
        ("np.where(self.split.train, suv, np.nan)", "suv"),
        ("found.label == NOT_TESTABLE, -1, found.label", "found.label == -9, -1, found.label"),
        ("if self.guard >= self.full_guard", "if self.guard >= 0"),
    )
    found += _of(
        "core/invivo.py",
        "tests/io/test_invivo.py",
        ("if time_h < 0:", "if time_h < -1e9:"),
        ("if time_h > _MAX_TIME_H:", "if time_h > 1e9:"),
        ('(value == 0 and name != "voxel_sd")', "False"),
        ("max(_SAME_S / 3600, _SAME_SHARE * later)", "_SAME_S / 3600"),
        ("return first.region == second.region and", "return"),
        ("if len(units) > 1:", "if len(units) > 9:"),
        ('if reference != "injection":', 'if reference == "start":'),
        ("return _REGIONS.get(name, name)", "return name"),
        ("key=lambda one: (one.time_h, one.region)", "key=lambda one: (one.region, one.time_h)"),
        ("text != text.strip() or not text.isprintable()", "text != text.strip()"),
    )
    found += _of(
        "io/invivo.py",
        "tests/io/test_invivo.py",
        ("repr(float(value))", 'f"{value:.12g}"'),
        ('math.nan if "_" in text else float(text)', "float(text)"),
        ("elif len(plain) != len(columns):", "elif len(plain) < len(columns):"),
        ("if columns.count(name) > 1", "if columns.count(name) > 5"),
        ("rows.append((lines.line_num,", "rows.append((lines.line_num - 1,"),
        ("absent = [name for name in _NEEDED if", "absent = [name for name in _NEEDED[:1] if"),
        ("if unknown:", "if len(unknown) > 1:"),
    )
    found += _of(
        "core/pet_volume.py",
        "tests/io/test_pet_volume.py",
        ("_SAME_VOXELS * min(self.spacing_mm)", "30 * min(self.spacing_mm)"),
        ("np.abs(along - usual) > 0.02 * usual + 0.01", "np.abs(along - usual) > 2.0 * usual"),
        ("if len(units) > 1:", "if len(units) > 2:"),
        ("if len(positions_mm) < 2:", "if len(positions_mm) < 1:"),
        (
            "found.update(np.ascontiguousarray(image.raster.values, np.float64).tobytes())",
            "found.update(str(image.raster.values.shape).encode())",
        ),
        ("key, salt.encode(), _HASH_ROUNDS", 'key, b"salt", _HASH_ROUNDS'),
        ("apart @ np.linalg.inv(self.steps_mm)", "apart @ np.linalg.inv(self.steps_mm).T"),
        ("self.images[0].header.scanned", "None"),
    )
    found += _of(
        "io/pet/masks.py",
        "tests/io/test_pet_volume.py",
        ("reference.upper() != grid.reference", "False"),
        ("found[known].symmetric_difference(shape)", "found[known].union(shape)"),
        ("if gap > _SAME_VOXEL or (np", "if (np"),
        ("if not theirs.is_same(grid):", "if theirs.shape != grid.shape:"),
        ("if label is None and len(known) > 1:", "if False:"),
        ("half = thickness_mm / deep / 2", "half = 0.5"),
        ("_segment_of(frame, shared) != number:", "_segment_of(frame, shared) > 9:"),
        ("np.ptp(index[:, 0]) > _SAME_VOXEL", "np.ptp(index[:, 0]) > 9"),
        ("<= _CONTOUR_DIFFERENCE * contours_ml", "<= 10 * contours_ml"),
        ("shape.area * high * wide", "shape.area * high * high"),
        ('"CLOSED_PLANAR":', '"CLOSED_PLANAR" and not contour.ContourData:'),
        ("if not found.voxels.any():", "if False:"),
    )
    found += _of(
        "uptake/volume_of_interest.py",
        "tests/uptake/test_volume_of_interest.py tests/workflow/test_measure_invivo.py",
        ("1 - 3 * r / (4 * ratio) + r**3", "1 - 3 * r / (4 * ratio) - r**3"),
        ("math.sqrt(2 / math.pi) * ratio", "math.sqrt(2 / math.pi)"),
        ("(4 * math.pi) ** 1.5 * sigma_cm**3", "(2 * math.pi) ** 1.5 * sigma_cm**3"),
        ("max(1.0, volume_ml", "max(0.0, volume_ml"),
        ("math.hypot(noise, calibration * mean)", "calibration * mean"),
        ("values.std(ddof=1)", "values.std()"),
        ("10 * (3 * volume_ml", "8 * (3 * volume_ml"),
        ('1 / of_mean if recovery == "mean"', '1 / of_centre if recovery == "mean"'),
        ("sd=error * factor", "sd=error"),
        ("mean=mean * factor", "mean=mean"),
        ("if absent:", "if absent > 5:"),
        ("if values.size < 2:", "if values.size < 1:"),
        ("(middle - reach < -0.5).any() or", "False or"),
        ("start + _middle_s(volume.images[place], moments) / 3600", "start"),
        ("if 2 * radius_mm < SMALL_IN_FWHM * fwhm_mm:", "if radius_mm < SMALL_IN_FWHM * fwhm_mm:"),
        ("<= radius_mm**2", "<= radius_mm"),
        (
            "for place, term in zip(places, terms, strict=True)\n    ]",
            "for place, term in zip(places, terms[::-1], strict=True)\n    ][:1]",
        ),
    )
    found += _of(
        "workflow/invivo.py",
        "tests/workflow/test_invivo.py tests/workflow/test_measure_invivo.py",
        ("2.0 ** (hours / record.half_life_h)", "2.0 ** (-hours / record.half_life_h)"),
        ("return scale * decay * factor", "return decay * factor"),
        ("sum(ends) / 2", "ends[0]"),
        ("(seconds - start) / 3600", "seconds / 3600"),
        ("self._suv(self.target) / self._suv(name)", "1.0"),
        ("_OTHER_INJECTION_H: Final = 1.0", "_OTHER_INJECTION_H: Final = 1e9"),
        ("if own and known and own not in known:", "if False:"),
        ("own and not known and not volume.is_named(case.patient)", "False"),
        ('if found in ("g/mL", "cm²/mL"):', "if False:"),
        ('if word == "ADMIN":', 'if word in ("ADMIN", "START"):'),
        ("if replace_same:", "if True:"),
        ("not any(same_scan(one, other) for other in new)", "False"),
        ("else voxel_sd * factor", "else voxel_sd"),
        ("sd=sd * factor", "sd=sd"),
    )
    found += _of(
        "phantom/in_vivo.py",
        "tests/phantom/test_in_vivo.py",
        ("k1 + 2 * k2 + 2 * k3 + k4", "k1 + k2 + k3 + 3 * k4"),
        ("free = 1 - (bound + inside) / law.capacity", "free = 1.0"),
        ("(1 - law.haematocrit) * in_plasma", "in_plasma"),
        ("law.fwhm_mm / PER_FWHM / VOXEL_MM * PARTS", "0.1"),
        ("random_generator(seed, first, 12, day)", "random_generator(0, first, 12, day)"),
        ("first = next(name for name in CASES if name[0] == plan.name[0])", "first = plan.name"),
    )
    found += _of(
        "twin/data.py",
        "tests/twin/test_log_linear.py tests/twin/test_chain.py",
        ("SLICE_CV if self.from_slice else 0.0", "0.0"),
        ("MODEL_CV = 0.05", "MODEL_CV = 0.04"),
        ("parts = (self.sd / self.mean, MODEL_CV", "parts = (self.sd, MODEL_CV"),
        ("if time < 0:", "if time < -1e9:"),
        ("if len(units) > 1:", "if len(units) > 2:"),
        (
            "np.log(pairs[:, 0]), np.diag(pairs[:, 1] ** 2), constants",
            "np.log(pairs[:, 0]), np.diag(pairs[:, 1]), constants",
        ),
        (
            "if not self.sd[self.names.index(name)] > 0:",
            "if not self.sd[self.names.index(name)] >= 0:",
        ),
    )
    found += _of(
        "twin/chain.py",
        "tests/twin/test_chain.py",
        (
            'blood = 1 - self.prior.constants["haematocrit"]\n        parts',
            "blood = 1.0\n        parts",
        ),
        (
            "level = (1 - share) * self._retained(values, time) + share * level",
            "level = self._retained(values, time) + share * level",
        ),
        (
            '(1 + values["k32_per_h"] / (decay + values["k03_per_h"]))',
            '(1 + values["k32_per_h"] / (decay + values["k32_per_h"]))',
        ),
        ("total = total + level * (bound + inside)", "total = total + level * inside"),
        ("time**4 * h2 / 24 - time**5 * h3 / 120", "time**4 * h2 / 12 - time**5 * h3 / 120"),
        ("near = (high - low) * time < _SERIES_BELOW", "near = (high - low) * time < 0"),
        (
            "return np.asarray(time * np.exp(-np.minimum(a, b) * time) * share)",
            "return np.asarray(time * np.exp(-np.maximum(a, b) * time) * share)",
        ),
    )
    found += _of(
        "twin/posterior.py",
        "tests/twin/test_log_linear.py tests/twin/test_identify.py tests/twin/test_chain.py",
        ("rest = gap @ gap - projected @ projected", "rest = gap @ gap"),
        ("+ np.log(sd).sum()\n    ln_density", "\n    ln_density"),
        ("return mean + spread @ projected, spread", "return mean - spread @ projected, spread"),
        (
            "evidence = float(top + math.log(share.sum() * steps))",
            "evidence = float(top + math.log(share.sum()))",
        ),
        ("LOG_LINEAR[1]: -times}", "LOG_LINEAR[1]: times}"),
        ("GRID_SD = 6.0", "GRID_SD = 1.0"),
        ("if k < MAX_PARETO_K:", "if True:"),
        ("if ((high - low) / (GRID - 1) <= sd / 3).all():", "if True:"),
        (
            "return np.asarray(-0.5 * (scaled**2).sum(axis=-1) - norm, float)",
            "return np.asarray(-0.5 * (scaled**2).sum(axis=-1), float)",
        ),
        (
            "rows = checked_observations(observations)\n    for row in rows:",
            "rows = tuple(observations)\n    for row in rows:",
        ),
        (
            "slopes = np.where(held[:, None, :], 0.0, slopes)",
            "slopes = np.where(held[:, None, :], slopes, slopes)",
        ),
    )
    found += _of(
        "twin/scans.py",
        "tests/twin/test_log_linear.py tests/twin/test_chain.py",
        ("+ noise**2)\n        bands", ")\n        bands"),
        (
            "np.percentile(levels, [5, 50, 95], axis=0)",
            "np.percentile(levels, [2.5, 50, 97.5], axis=0)",
        ),
        (
            "levels = levels + noise * _normal(levels.shape, posterior.seed)",
            "levels = levels + _normal(levels.shape, posterior.seed) * noise / 2",
        ),
        (
            "variance = float(weights @ (levels - mean) ** 2) + noise**2",
            "variance = float(weights @ (levels - mean) ** 2)",
        ),
        (
            "return z, -0.5 * (z**2 + math.log(variance) + _LN_2PI)",
            "return z, -0.5 * (z**2 + math.log(variance))",
        ),
        ("before - shared**2 / (scan + noise**2)", "before - shared**2 / scan"),
        ("gone = slope + math.log(2) / number", "gone = slope + 1 / number"),
        (
            "if (row.time_h, row.region) == (observation.time_h, observation.region):",
            "if row is observation and False:",
        ),
    )
    found += _of(
        "twin/identify.py",
        "tests/twin/test_identify.py",
        ("if contraction < 0.5 or math.isinf(low) or math.isinf(high):", "if contraction < 0.5:"),
        (
            "IDENTIFIED if contraction > 0.9 else PARTLY",
            "IDENTIFIED if contraction > 0.5 else PARTLY",
        ),
        ("DELTA_CHI2 = 3.84", "DELTA_CHI2 = 2.71"),
        ("_CORRELATED = 0.95", "_CORRELATED = 0.5"),
        (
            "return np.where(unseen, np.inf, np.sqrt(variance) * prior_sd)",
            "return np.sqrt(variance) * prior_sd",
        ),
        (
            "contraction = np.where(moved, np.clip(1 - ratio, 0, 1), 0.0)",
            "contraction = np.where(moved, np.clip(1 - np.sqrt(ratio), 0, 1), 0.0)",
        ),
        ("np.zeros(slopes.shape[1] - found.size)", "np.zeros(0)"),
    )
    found += _of(
        "twin/virtual.py",
        "tests/twin/test_virtual.py",
        ("+ 0.5 * (first == second).mean()", "+ 0.0 * (first == second).mean()"),
        ("else outcomes >= bar", "else outcomes > bar"),
        ("while _half_width(p, n, z2) > width:", "while _half_width(p, n, z2) > 1.1 * width:"),
        ("(share + z2 / (2 * count))", "(share + z2 / count)"),
    )
    found += _of(
        "twin/chain.py",
        "tests/workflow/test_virtual_cohort.py",
        ("half * (k32 + occupied), half * occupied", "half * k32, half * occupied"),
        ("share = share / self._antigen_share(values, time_h, fitted)", "pass"),
    )
    found += _of(
        "twin/sampling.py",
        "tests/twin/test_chain.py",
        (
            "(shape * n_tail + 0.5 * 10) / (n_tail + 10)",
            "(-shape * n_tail + 0.5 * 10) / (n_tail + 10)",
        ),
        (
            "return float(n * m / max(2 * kept.sum() - 1, 1e-3))",
            "return float(n / max(2 * kept.sum() - 1, 1e-3))",
        ),
        (
            "ln_integral = float(top + math.log(weights.mean()))",
            "ln_integral = float(top + math.log(weights.sum()))",
        ),
        ("sampler._random = np.random.RandomState(rng.integers(2**31))", "pass"),
    )
    found += _of(
        "workflow/twin.py",
        "tests/workflow/test_twin.py",
        ("chosen = read_plan(self.case.root, plan.strip())", "chosen = None"),
        ('same = now.get(line["plan"]) == line["plan_digest"]', "same = True"),
        ('if kept["patient"] != self.case.patient:', "if False:"),
        (">= _NEW_IMAGES", ">= 1"),
        ("if was != now:", "if False:"),
        (
            "if stored is not None:\n            return stored",
            "if False:\n            return stored",
        ),
        ("cv=row.ln_sd)", "cv=0.0)"),
        ('or file_digest(place) != last["draws"]', ""),
        ('if abs(one["z"]) > IN_DOUBT_Z', 'if abs(one["z"]) > 99'),
        ("curve.draws[:n_draws] * per_unit", "curve.draws[-n_draws:] * per_unit"),
        ("(1e3 * p.plasma_volume_l)", "p.plasma_volume_l"),
        ("from_slice=True,", "from_slice=False,"),
        ("after.log_evidence - before.log_evidence", "after.log_evidence"),
        ("p.permeability_um_per_s * _S_PER_H * surface", "p.permeability_um_per_s * surface"),
        (
            "known = {(row.time_h, row.region) for row in self.taken}\n        self._compare",
            "known = set()\n        self._compare",
        ),
    )
    found += _of(
        "workflow/virtual_cohort.py",
        "tests/workflow/test_virtual_cohort.py",
        ("square = plan.beta * r**2 *", "square = plan.beta * r *"),
        ("plan.rbe * each", "1.0 * each"),
        ('plan.beta * r * each["q_mixed"]', '0.0 * r * each["q_mixed"]'),
        ("ln_survival = births - beam - linear", "ln_survival = births - linear"),
        ("suv[:, None] / float(np.nanmean(suv))", "suv[:, None]"),
        ("lost_effect(), weight[:, None] * np", "lost_effect(), np"),
        ("(mass_mg * 1e6 / _MOLAR_G)", "mass_mg"),
        ("smaller_is_better=True)", "smaller_is_better=False)"),
        ("elif kind.smaller_is_better and limit is not None:", "elif False:"),
        ("if plan.fractions:\n", "if False:\n"),
    )
    found += _of(
        "workflow/virtual_cohort.py",
        "tests/workflow/test_twin.py",
        ("np.exp(ln) / self._measure", "np.exp(ln)"),
        ("alone = np.einsum", "alone = 2 * np.einsum"),
        ('rows.append(curves * gy["electron"])', "rows.append(curves)"),
        ("source = twin.population if population else twin.posterior", "source = twin.posterior"),
    )
    found += _of(
        "kinetics/immunokinetic.py",
        "tests/kinetics/test_sbml.py",
        (
            "sites = params.antigen_um - params.bound_0_um - params.free_0_um",
            "sites = params.antigen_um - params.free_0_um",
        ),
        ('"loss": ("internalised", ""', '"loss": ("bound", ""'),
        ('("second", 1, 0, "3600")', '("second", 1, 0, "60")'),
    )
    found += _of(
        "workflow/plan_dose.py",
        "tests/workflow/test_plan_dose.py",
        (
            "uptake.shape @ form.until_h[own] / uptake.measure, n)",
            "uptake.shape @ form.until_h[own], n)",
        ),
        (
            "uptake.shape @ form.total_h[own] / uptake.measure",
            "uptake.shape @ form.until_h[own] / uptake.measure",
        ),
        ("/ plan.density_g_ml\n                for part", "/ 1.05\n                for part"),
        ('"dose": activity / factor("density")', '"dose": activity * factor("density") ** 2'),
        ('factor("calibration") * factor("time_course")', 'factor("calibration")'),
        ("rows % self._curves.n}", "rows * 0}"),
        ("self._curves.total[row, place, None]", "self._curves.until[row, place, None]"),
        ("basis, self._square[:, i, j, row]", "basis, self._square[:, i, i, row]"),
        ('alpha = plan.alpha * factor("alpha")', "alpha = plan.alpha * np.ones(len(activity))"),
        ('"beta": alpha * ratio', '"beta": ratio * plan.alpha * alpha'),
        ("np.random.default_rng([plan.seed, place])", "np.random.default_rng([plan.seed, 0])"),
        ("np.random.default_rng([plan.seed, place])", "np.random.default_rng([0, place])"),
        ("fields[:, tiles][rows % len(fields)]", "fields[:, tiles][rows * 0]"),
        ("uptake = suv if error is None else np.maximum(suv + error, 0.0)", "uptake = suv"),
        (
            "np.maximum(electron + self.electron_slope[tiles] * error, 0.0)",
            "electron + self.electron_slope[tiles] * error",
        ),
        ("linear, quadratic = eff, g * eff**2", "linear, quadratic = eff, eff**2"),
        (
            '2 * factors["beta"] / factors["alpha"] * mixed',
            'factors["beta"] / factors["alpha"] * mixed',
        ),
        (
            'fixed = factors["alpha"] * beam * h + factors["beta"] * alone * h**2',
            'fixed = factors["alpha"] * beam * h',
        ),
        ('linear = linear + factors["rbe"] * high * h_alpha', "linear = linear + high * h_alpha"),
        ('h = 1.0 if lost is None else 1 - (1 - 1 / factors["m"]) * lost', "h = 1.0"),
        ("max(0.0, plan.until_days - plan.kick_off_days)", "plan.kick_off_days"),
        (
            "return np.asarray(-self.ln_survival / self._alpha, float)",
            "return np.asarray(-self.ln_survival, float)",
        ),
        (
            "self.bed_gy / (1 + 2 * self._beta / self._alpha)",
            "self.bed_gy / (1 + self._beta / self._alpha)",
        ),
        ("tiles[own] * per_suv", "tiles[own]"),
        (
            "spacing = [step / self.uptake.living_scale",
            "spacing = [step * 10 / self.uptake.living_scale",
        ),
        ("r90 > extent / 2", "r90 > extent * 20"),
        ("shares[:, place] * np.exp(", "np.exp("),
        ("least = sum(effect(lost[farthest]))", "least = 0 * sum(effect(lost[farthest]))"),
        ("np.trapezoid(_lost_at(inside), axis=0) / 100", "_lost_at(edges[:-2])"),
        ("np.maximum(self.uptake.suv + fields[here], 0.0)", "np.maximum(self.uptake.suv, 0.0)"),
        ("per_alpha *= self.uptake.suv[tile]", "per_alpha *= 1.0"),
        ("whole += 2 * share * rate", "whole += share * rate"),
        ("max(known, key=known.__getitem__)", "min(known, key=known.__getitem__)"),
        ("float(np.mean(gap > 0))", "float(np.mean(gap < 0))"),
    )
    found += _of(
        "dosimetry/treatment.py",
        "tests/workflow/test_plan_dose.py",
        ("total[own] += mbq * integral", "total[own] = mbq * integral"),
        ("- q_of[alone[j]]) / 2", "- q_of[alone[j]])"),
        ("curves.time_h + start, values", "curves.time_h, values"),
        ("state.dose_gy(until_h)", "state.dose_gy()"),
        ("state.q_gy2(until_h)", "state.q_gy2()"),
    )
    found += _of(
        "dosimetry/indices.py",
        "tests/dosimetry/test_draws.py",
        ("low = np.floor(at).astype(int)", "low = np.ceil(at).astype(int)"),
        ("np.minimum(low + 1, len(values) - 1)", "low"),
        ("mean = control.ln_survivors - np.log(clonogens)", "mean = control.ln_survivors"),
        ("here = slice(start, min(start + size, n_draws))", "here = slice(0, min(size, n_draws))"),
        (
            "volume[len(rows)] = histogram.volume_at(doses)",
            "volume[0] = histogram.volume_at(doses)",
        ),
    )
    found += _of(
        "dosimetry/response.py",
        "tests/dosimetry/test_response.py tests/workflow/test_plan_dose.py",
        ("-ratio * total, -total)", "-total, -total)"),
        (
            "share = b / total * (self._share.size - 1)",
            "share = a / total * (self._share.size - 1)",
        ),
        ("beta * q * h**2", "beta * q * h"),
        ("bed / (1 + 2 * beta / alpha)", "bed / (1 + beta / alpha)"),
        ("(d * h + weight * high * h_alpha)", "(d * h + weight * high)"),
        ("1 - (1 - 1 / most) * half / (q + half)", "1 - half / (q + half)"),
        ("np.clip(1 - x / reach, 0.0, None) ** 2", "np.clip(1 - x / reach, 0.0, None)"),
        (
            "math.sqrt(2 * diffusion * vessel / consumption)",
            "math.sqrt(diffusion * vessel / consumption)",
        ),
    )
    found += _of(
        "dosimetry/time_integral.py",
        "tests/dosimetry/test_time_integral.py",
        ("after = values[:, -1] / curve.tail_per_h", "after = values[:, -1] * curve.tail_per_h"),
        ("if effective > half_life_h:", "if effective > 2 * half_life_h:"),
        (
            "np.flatnonzero(curves[:, -1] > curves[:, -2])",
            "np.flatnonzero(curves[:, -1] > 2 * curves[:, -2])",
        ),
        (
            "decayed = curves * np.exp2(-times / half_life)",
            "decayed = curves * np.exp2(times / half_life)",
        ),
    )
    found += _of(
        "dosimetry/nuclides.py",
        "tests/dosimetry/test_nuclides.py",
        ("1.602176634e-13 * 3.6e9 * 1e3", "1.602176634e-13 * 3.6e9"),
        ('("Lu-177", 159.5, 147.9,', '("Lu-177", 159.5, 133.3,'),
        ("stays[name] + float(share) * (whole[name] - stays[name])", "whole[name] * float(share)"),
        ('"electron": 33.8', '"electron": 338.0'),
    )
    found += _of(
        "dosimetry/indices.py",
        "tests/dosimetry/test_indices.py",
        ('order = np.argsort(-doses, kind="stable")', 'order = np.argsort(doses, kind="stable")'),
        ("2 * effect / (alpha + root)", "effect / (alpha + root)"),
        (
            "survivors = _ln_mean_survival(ln_survival, weight) + np.log(number)",
            "survivors = _ln_mean_survival(ln_survival, weight)",
        ),
        (
            "np.min(np.broadcast_arrays(*allowed.values()), axis=0)",
            "np.max(np.broadcast_arrays(*allowed.values()), axis=0)",
        ),
    )
    found += _of(
        "dosimetry/kernel.py",
        "tests/dosimetry/test_spread.py",
        ("2 * np.pi / density *", "2 * np.pi *"),
        ("np.maximum(spread, 0.0)", "spread"),
    )
    found += _of(
        "workflow/plan_record.py",
        "tests/workflow/test_plans.py tests/cli/test_dose.py",
        ('self.activity * (1e3 if self.unit == "GBq" else 1.0)', "self.activity"),
        ("return self.activity * surface_m2", "return self.activity / surface_m2"),
        ("24.0 * (self.day + number)", "24.0 * self.day + number"),
        ("if after.day < before.day:", "if after.day < before.day - 100:"),
        ("self.clonogens_per_ml * self.tumour_ml", "self.clonogens_per_ml"),
        ("math.log(2) / half) for share, half in repair", "1 / half) for share, half in repair"),
        ("_FAR_ABOVE: Final = 3.0", "_FAR_ABOVE: Final = 3e6"),
    )
    found += _of(
        "workflow/plan_presets.py",
        "tests/workflow/test_plans.py",
        ("_LARGEST_LU_177 * 0.75**place", "_LARGEST_LU_177 * 0.75"),
    )
    found += _of(
        "workflow/plans.py",
        "tests/workflow/test_plans.py tests/cli/test_dose.py",
        ("if not same and len(names) >= PLANS_KEPT:", "if not same and len(names) > PLANS_KEPT:"),
    )
    found += _of(
        "workflow/steps/dose.py",
        "tests/workflow/test_dose_step.py",
        ("same = next((n for n", "same = None and next((n for n"),
    )
    found += _of(
        "workflow/plan_facts.py",
        "tests/workflow/test_dose_step.py",
        ("found[start:stop] = width * fields", "found[start:stop] = fields"),
        ('return "bsa", lean', 'return "bw", lean'),
        ("return share, NEOPLASTIC_AREA", "return coverage, NEOPLASTIC_AREA"),
        ("* self.living_scale()[0]", "* 1.0"),
        ("shape = curves / level[:, None]", "shape = curves"),
        ("end = patient.excised or patient.scanned", "end = patient.scanned"),
    )
    return found


def _copied(place: Path) -> None:
    """A copy of the tree, made again where a file differs; caches of compiled loops stay."""
    place.mkdir(parents=True, exist_ok=True)
    for name in ("src", "tests", "benchmarks", "sample_data", "docs"):
        for path in (ROOT / name).rglob("*"):
            target = place / path.relative_to(ROOT)
            if not path.is_file() or "__pycache__" in path.parts:
                continue
            if not target.is_file() or target.read_bytes() != path.read_bytes():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, target)
    shutil.copy2(ROOT / "pyproject.toml", place / "pyproject.toml")


def _exit_code(tests: str, place: Path, seconds: float) -> int:
    """Exit code of pytest on some tests of the copy; 1 if it takes too long."""
    environment = {**os.environ, "PYTHONPATH": f"{place / 'src'}{os.pathsep}{place}"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    try:
        return subprocess.run(
            [*command, *tests.split()],
            cwd=place,
            env=environment,
            capture_output=True,
            timeout=seconds,
            check=False,
        ).returncode
    except subprocess.TimeoutExpired:
        return 1  # a fault that never ends is noticed


def _noticed(fault: Fault, place: Path, seconds: float) -> bool | None:
    """Whether a test failed; None if the tests could not be run at all."""
    path = place / PACKAGE / fault.file
    whole = path.read_text("utf-8")
    try:
        path.write_text(whole.replace(fault.old, fault.new), "utf-8")
        return {0: False, 1: True}.get(_exit_code(fault.tests, place, seconds))
    finally:
        path.write_text(whole, "utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default="", help="faults whose file or text has this word")
    parser.add_argument("--state", type=Path, default=ROOT / ".mutants" / "state.json")
    parser.add_argument("--again", action="store_true", help="forget earlier results")
    parser.add_argument("--list", action="store_true", help="check the texts, run nothing")
    parser.add_argument("--seconds", type=float, default=900.0, help="limit of one run of tests")
    given = parser.parse_args()
    chosen = [one for one in faults() if given.only in str(one)]
    wrong = [
        one for one in chosen if (ROOT / PACKAGE / one.file).read_text("utf-8").count(one.old) != 1
    ]
    for one in wrong:
        print(f"error: does not occur exactly once: {one}")
    print(f"{len(chosen)} faults, {len(wrong)} of them no longer fit")
    if given.list:
        return 1 if wrong else 0
    given.state.parent.mkdir(parents=True, exist_ok=True)
    known = {}
    if given.state.is_file() and not given.again:
        known = json.loads(given.state.read_text("utf-8"))
    place = given.state.parent / "tree"
    _copied(place)
    red: dict[str, bool] = {}
    for number, one in enumerate(chosen, 1):
        if one in wrong or one.key in known:
            continue
        if one.tests not in red:  # tests that fail anyway notice nothing
            red[one.tests] = _exit_code(one.tests, place, given.seconds) != 0
            if red[one.tests]:
                print(f"error: without any fault these tests are not green: {one.tests}")
        if red[one.tests]:
            continue
        begin = time.monotonic()
        noticed = _noticed(one, place, given.seconds)
        word = {True: "noticed", False: "SURVIVED", None: "tests not run"}[noticed]
        print(
            f"{number} of {len(chosen)}: {word}, {time.monotonic() - begin:.0f} s: {one}",
            flush=True,
        )
        if noticed is not None:
            known[one.key] = noticed
            given.state.write_text(json.dumps(known, indent=1), "utf-8")
    left = [one for one in chosen if known.get(one.key) is False]
    print(f"{sum(one.key in known for one in chosen)} run, {len(left)} survivors")
    for one in left:
        print(f"survivor: {one}")
    return 1 if left or wrong or any(red.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
