"""The replays of what a search keeps, of when it ends and of its stages."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

Main = Callable[[list[str]], int]


@pytest.fixture
def main(script: Callable[[str], ModuleType]) -> Main:
    found: Main = script("check_reference").main
    return found


def test_the_stages_of_p_darts_are_reproduced(main: Main, reference_folder: Path, tmp_path: Path) -> None:
    source = reference_folder / "one_shot" / "p_darts_stages.json"
    assert main([str(source)]) == 0
    content = json.loads(source.read_text())
    content["stages"][0]["kept"]["normal"][0] = content["stages"][0]["kept"]["normal"][0][::-1]
    (tmp_path / "altered.json").write_text(json.dumps(content))
    assert main([str(tmp_path / "altered.json")]) == 1
    del content["stages"][1]["alphas"]
    (tmp_path / "incomplete.json").write_text(json.dumps(content))
    assert main([str(tmp_path / "incomplete.json")]) == 2


@pytest.mark.parametrize("seed", range(4))
def test_of_equal_edges_and_operations_the_last_stage_of_p_darts_keeps_the_later_one(
    seed: int, main: Main, tmp_path: Path
) -> None:
    names = ["none", "max_pool_3x3", "skip_connect", "sep_conv_3x3", "dil_conv_3x3"]
    drawn = np.random.default_rng(seed)
    live = {cell: [sorted(drawn.permutation(5)[:3].tolist()) for _ in range(14)] for cell in ("normal", "reduce")}
    levels = np.log([1.0, 2.0, 4.0])  # every row has the same three probabilities, so that edges and their skips tie
    alphas = {cell: [drawn.permutation(levels).tolist() for _ in range(14)] for cell in live}
    alphas["reduce"][0] = [0.0] * 3  # and here operations do
    shares = {
        cell: [{place: round(float(np.exp(value))) for place, value in zip(*row, strict=True)} for row in rows]
        for cell, rows in ((cell, list(zip(live[cell], alphas[cell], strict=True))) for cell in live)
    }
    genotypes = []
    for most in ("unrestricted", *range(8, -1, -1)):
        cells = of_the_original(shares, names, 8 if most == "unrestricted" else int(most))
        genotypes.append({"max_skips": most, **cells})
    stage = {"stage": 0, "live_operations": live, "alphas": alphas, "genotypes": genotypes}
    content = {"operations": names, "num_to_keep": [1], "stages": [stage]}
    (tmp_path / "ties.json").write_text(json.dumps(content))
    assert main([str(tmp_path / "ties.json")]) == 0


def of_the_original(
    shares: dict[str, list[dict[int, int]]], names: list[str], most: int
) -> dict[str, list[tuple[str, int]]]:
    """The rule as the reference's notes have it, on whole numbers in the place of probabilities."""
    left = {
        cell: [{place: share for place, share in row.items() if place > 0} for row in shares[cell]] for cell in shares
    }
    while True:
        kept, skips = {}, []
        for cell, rows in left.items():
            chosen = [max(row, key=lambda place: (row[place], place)) for row in rows]
            kept[cell] = []
            for node in range(2, 6):
                first = sum(range(2, node))
                edges = sorted(range(first, first + node), key=lambda edge: (rows[edge][chosen[edge]], edge))[-2:]
                kept[cell] += [(names[chosen[edge]], edge - first) for edge in sorted(edges)]
                skips += [edge for edge in edges if cell == "normal" and names[chosen[edge]] == "skip_connect"]
        if len(skips) <= most:
            return kept
        skip = names.index("skip_connect")
        left["normal"][min(skips, key=lambda edge: (left["normal"][edge][skip], edge))][skip] = 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "entry"),
    [("darts_pt_c4_l3.npz", "relaxed_accuracy_and_loss"), ("robust_darts_s3_c4_l3.npz", "hessian")],
)
def test_files_are_reproduced_and_what_is_altered_is_found(
    name: str, entry: str, main: Main, reference_folder: Path, tmp_path: Path
) -> None:
    source = reference_folder / "one_shot" / name
    assert main([str(source)]) == 0
    with np.load(source, allow_pickle=False) as archive:
        content = {key: archive[key] for key in archive.files}
    np.savez(tmp_path / name, **{**content, entry: content[entry] * (1 + 1e-8)})
    assert main([str(tmp_path / name)]) == 1
