"""Architectures that cannot work are told by what they are, before anything is trained."""

from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

import train_final
from nas.interop.named_architecture import PUBLISHED
from nas.run.entry_point import messages_on_console
from nas.signature import Signature
from nas.spaces.darts.space import Darts
from nas.spaces.macro.space import Macro
from nas.spaces.nasbench201.choices import parse_architecture
from nas.spaces.nasbench201.space import NasBench201

CONF = Path(__file__).resolve().parents[2] / "conf"
DEAD = "|none~0|+|nor_conv_3x3~0|none~1|+|none~0|nor_conv_3x3~1|none~2|"


def test_a_cell_is_doubted_exactly_where_its_logits_are_the_same_for_every_image() -> None:
    torch.manual_seed(0)
    space = NasBench201(channels=2, cells_per_stage=1, signature=Signature((1, 8, 8), 3))
    generator, images, dead = torch.Generator().manual_seed(0), torch.randn(8, 1, 8, 8), 0
    sampled = [space.sample(generator).architecture for _ in range(60)]
    rare = [{**one, **dict.fromkeys(list(one)[index::2], "none")} for index, one in enumerate(sampled[:2])]
    architectures = [*sampled, *(type(sampled[0])("nasbench201", one) for one in rare), parse_architecture(DEAD)]
    for architecture in architectures:
        with torch.no_grad():
            logits = space.network(architecture)(images)  # in training mode, whose batch norm magnifies what is left
        same = bool((logits == logits[0]).all())
        dead += same
        assert bool(space.doubts(architecture)) == same
    assert dead >= 2


@pytest.mark.parametrize("side", [8, 31])
def test_a_stem_for_large_images_is_doubted_on_small_ones(side: int) -> None:
    space = Darts(final_channels=2, final_cells=3, final_network="imagenet", signature=Signature((3, side, 40), 4))
    (doubt,) = space.doubts(space.architecture(PUBLISHED["darts_v2"]))
    assert doubt == f"it reduces {side}x40 images 32 times, to less than a pixel"


@pytest.mark.parametrize(("side", "kind"), [(32, "imagenet"), (4, "cifar"), (28, "cifar")])
def test_images_that_are_large_enough_raise_no_doubt(side: int, kind: str) -> None:
    space = Darts(final_channels=2, final_cells=3, final_network=kind, signature=Signature((3, side, side), 4))
    assert space.doubts(space.architecture(PUBLISHED["darts_v2"])) == []


@pytest.mark.parametrize(("pools", "doubts"), [(2, []), (3, ["it reduces 4x9 images 8 times, to less than a pixel"])])
def test_a_chain_is_doubted_by_its_strides(pools: int, doubts: list[str]) -> None:
    pool = {"type": "pool", "pool_size": 2, "kind": "max", "stride": 2}
    conv = {"type": "conv", "filters": [2, 4], "kernel_size": 3, "stride": 1, "optional": True}
    layers = [*[pool] * pools, conv, {"type": "dense", "units": 4}]
    space = Macro(layers, ["relu"], signature=Signature((1, 4, 9), 3))
    assert space.doubts(space.sample(torch.Generator().manual_seed(0)).architecture) == doubts


def test_the_retraining_says_so_before_it_begins(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cell.txt").write_text(DEAD)
    settings = ("space=nasbench201", "space.channels=2", "space.cells_per_stage=1", "final.epochs=1")
    data = ("data=digits", "data.split={train: 128, validation: 64, test: 64}", "tracking.tensorboard=false")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train_final", [f"candidate={tmp_path / 'cell.txt'}", *settings, *data])
    with messages_on_console():
        train_final.run(config, tmp_path / "run")
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("this architecture cannot work well: every way through its cell has a none")
