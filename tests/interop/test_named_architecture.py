"""Architectures by name and by text; the sizes of published networks."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

import train_final
from nas.errors import InvalidValue, UnusableInput
from nas.interop.genotype_text import genotype_text
from nas.interop.named_architecture import (
    PUBLISHED,
    PUBLISHED_RECURRENT,
    architecture_text,
    candidate_path,
    named_architecture,
    published_text,
)
from nas.run.recorded import inherited_configuration, recorded_configuration
from nas.signature import Signature
from nas.spaces.darts.genotype import Genotype
from nas.spaces.darts.network import DartsNetwork
from nas.spaces.darts.space import Darts
from nas.spaces.nasbench201.space import NasBench201
from nas.spaces.recurrent.genotype import RecurrentGenotype
from nas.spaces.recurrent.space import Recurrent
from nas.spaces.space import SearchSpace

CONF = Path(__file__).resolve().parents[2] / "conf"
CELL = "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_3x3~1|skip_connect~2|"

NAMES = {
    "darts_v1": "DARTS_V1",
    "darts_v2": "DARTS_V2",
    "nasnet": "NASNet",
    "amoebanet": "AmoebaNet",
    "pc_darts_cifar": "PC_DARTS_cifar",
    "pc_darts_imagenet": "PC_DARTS_image",
}


def space_named(name: str) -> SearchSpace:
    if name == "darts":
        return Darts(final_channels=4, final_cells=3, signature=Signature((3, 16, 16), 10))
    if name == "recurrent":
        return Recurrent(4, 4, signature=Signature((5,), 7, "sequence", (7,)))
    return NasBench201(channels=4, cells_per_stage=1, signature=Signature((3, 16, 16), 10))


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_name_and_its_text_give_the_published_cells(name: str) -> None:
    for text in (name, genotype_text(PUBLISHED[name])):
        space, architecture = named_architecture(text, space_named)
        assert isinstance(space, Darts)
        assert space.genotype(architecture) == PUBLISHED[name]
        assert len(space.layer_descriptions(architecture)) == 2 * space.steps


@pytest.mark.parametrize("name", PUBLISHED_RECURRENT)
def test_a_published_recurrent_cell_by_name_and_by_text(name: str) -> None:
    genotype = PUBLISHED_RECURRENT[name]
    for text in (name, genotype_text(genotype), f"search.log: genotype = {genotype_text(genotype)}"):
        space, architecture = named_architecture(text, space_named)
        assert isinstance(space, Recurrent)
        assert space.genotype(architecture) == genotype


def test_the_recurrent_cells_are_those_of_the_reference(reference_folder: Path) -> None:
    with np.load(reference_folder / "recurrent" / "rnn_eval_n8_t7.npz", allow_pickle=False) as archive:
        genotypes = json.loads(str(archive["config"]))["genotypes"]
    assert {f"{name}_rnn": RecurrentGenotype.from_mapping(one) for name, one in genotypes.items()} == (
        PUBLISHED_RECURRENT
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("Genotype(recurrent=[('relu', 0)], concat=range(1, 2), normal=[])", "each of recurrent, concat once"),
        ("Genotype(recurrent=[('relu', 1)], concat=range(1, 2))", "whole number from 0 to 0"),
        ("Genotype(recurrent=[('none', 0)], concat=range(1, 2))", "one of tanh, relu"),
        ("Genotype(recurrent=[('relu', 0)], concat=range(1, 3))", "different nodes"),
        ("Genotype(recurrent=[('relu', 0)], concat=os.system(1))", "a list of whole numbers"),
    ],
)
def test_texts_that_are_no_recurrent_cell(text: str, sentence: str) -> None:
    with pytest.raises(InvalidValue, match=sentence):
        named_architecture(text, space_named)


def test_a_nasbench201_cell() -> None:
    space, architecture = named_architecture(CELL, space_named)
    assert isinstance(space, NasBench201)
    assert "+".join(layer.detail for layer in space.layer_descriptions(architecture)) == CELL


def test_what_is_a_text(tmp_path: Path) -> None:
    assert architecture_text("darts_v2") == "darts_v2"
    assert architecture_text(CELL) == CELL
    assert architecture_text(str(tmp_path)) is None
    (tmp_path / "candidate.json").write_text("{}")
    assert architecture_text(str(tmp_path / "candidate.json")) is None
    (tmp_path / "found.txt").write_text(CELL + "\n")
    assert architecture_text(str(tmp_path / "found.txt")) == CELL
    (tmp_path / "large.txt").write_text("x" * 200_000)
    with pytest.raises(UnusableInput, match="larger"):
        architecture_text(str(tmp_path / "large.txt"))
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(UnusableInput, match="cannot be read as text"):
        architecture_text(str(tmp_path / "binary.txt"))


def test_a_text_that_is_too_long_for_a_files_name_is_no_fault_of_the_machine(tmp_path: Path) -> None:
    text = genotype_text(PUBLISHED["darts_v2"])
    assert architecture_text(text) == text
    config = OmegaConf.create({"candidate": text})
    assert inherited_configuration(config, []) is config
    (tmp_path / ".hydra").mkdir()
    OmegaConf.save(config, tmp_path / ".hydra" / "config.yaml")
    (tmp_path / ".hydra" / "hydra.yaml").write_text("hydra: {runtime: {cwd: /}}")
    assert recorded_configuration(tmp_path).candidate == text
    slip = text.replace("Genotype", "Genotpe")
    assert architecture_text(slip) is None
    with pytest.raises(InvalidValue, match=r"the text of an architecture"):
        candidate_path(slip)


SAME = ("assigned", "bom", "comment", "crlf", "list", "listrange", "logline", "npint", "tuple", "two", "utf16")


@pytest.mark.parametrize("name", SAME)
def test_a_file_as_other_tools_write_it_is_read(name: str, data_folder: Path) -> None:
    """The files hold one genotype each, in the form that their name tells."""
    files = [data_folder / "genotypes" / f"g_{one}.txt" for one in (name, "plain")]
    found, plain = (named_architecture(str(architecture_text(str(file))), space_named) for file in files)
    assert found[1] == plain[1]


def test_the_nested_genotype_of_pt_darts_is_read(data_folder: Path) -> None:
    space, architecture = named_architecture(
        str(architecture_text(str(data_folder / "genotypes" / "g_ptdarts.txt"))), space_named
    )
    assert isinstance(space, Darts)
    genotype = space.genotype(architecture)
    assert genotype.normal[2:4] == (("sep_conv_3x3", 0), ("skip_connect", 1))
    assert genotype.reduce_concat == (2, 3, 4, 5)


def test_a_cell_in_a_file_as_other_tools_write_it_is_read(data_folder: Path, tmp_path: Path) -> None:
    cell = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"
    (tmp_path / "log.txt").write_text(f"[2026-01-01] genotype : Structure(4 nodes with {cell})\n", encoding="utf-16")
    files = (data_folder / "genotypes" / "nb_bom.txt", data_folder / "genotypes" / "nb_crlf.txt", tmp_path / "log.txt")
    for file in files:
        space, architecture = named_architecture(str(architecture_text(str(file))), space_named)
        assert "+".join(layer.detail for layer in space.layer_descriptions(architecture)) == cell


def test_what_a_file_lacks_is_said(data_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match=r"g_empty\.txt is not allowed: the file is empty"):
        architecture_text(str(data_folder / "genotypes" / "g_empty.txt"))
    with pytest.raises(InvalidValue, match=r"normal\[0\]=sep_conv_3X3 is not allowed: the operation must be one of"):
        named_architecture(str(architecture_text(str(data_folder / "genotypes" / "g_typo.txt"))), space_named)
    (tmp_path / "other.txt").write_text("| op | ~ |\n|---|---|")
    with pytest.raises(InvalidValue, match=r"neither a genotype .* nor a NAS-Bench-201 cell"):
        architecture_text(str(tmp_path / "other.txt"))


def test_words_in_another_encoding_do_not_hide_a_genotype(tmp_path: Path) -> None:
    text = genotype_text(PUBLISHED["darts_v2"])
    (tmp_path / "latin.txt").write_bytes("# très bon\n".encode("latin-1") + text.encode())
    space, architecture = named_architecture(str(architecture_text(str(tmp_path / "latin.txt"))), space_named)
    assert isinstance(space, Darts)
    assert space.genotype(architecture) == PUBLISHED["darts_v2"]
    (tmp_path / "latin.txt").write_bytes("# très bon\n".encode("latin-1"))
    with pytest.raises(UnusableInput, match="cannot be read as text"):
        architecture_text(str(tmp_path / "latin.txt"))


def test_of_several_architectures_none_is_taken() -> None:
    both = f"A = {genotype_text(PUBLISHED['darts_v1'])}\nB = {genotype_text(PUBLISHED['darts_v2'])}"
    with pytest.raises(InvalidValue, match="it has 2 different genotypes, and must have one"):
        named_architecture(both, space_named)
    with pytest.raises(InvalidValue, match="it has 2 different NAS-Bench-201 cells, and must have one"):
        named_architecture(f"{CELL} {CELL.replace('avg_pool_3x3', 'none')} {CELL}", space_named)


@pytest.mark.parametrize("text", ["darts_v9", "__import__('os')", "Genotype(normal=1)", "|rm~0|", ""])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises((InvalidValue, UnusableInput)):
        named_architecture(text, space_named)


@pytest.mark.parametrize("name", NAMES)
def test_genotype_and_parameter_counts(name: str, data_folder: Path) -> None:
    reference = json.loads((data_folder / "published_genotypes.json").read_text())[NAMES[name]]
    assert PUBLISHED[name] == Genotype.from_mapping(reference["genotype"])
    settings = {"in_channels": 3, "channels": 36, "cells": 20, "classes": 10, "kind": "cifar"}
    imagenet = {"in_channels": 3, "channels": 48, "cells": 14, "classes": 1000, "kind": "imagenet"}
    for network, arguments in {"cifar10_C36_L20": settings, "imagenet_C48_L14": imagenet}.items():
        with torch.device("meta"):
            module = DartsNetwork(PUBLISHED[name], **arguments, auxiliary=True)  # type: ignore[arg-type]
        counts = {key: sum(p.numel() for p in part.parameters()) for key, part in module.named_children()}
        assert sum(counts.values()) == reference[network]["parameters_total"]
        assert sum(counts.values()) - counts["auxiliary_head"] == reference[network]["parameters_without_auxiliary"]


def test_every_published_genotype_is_checked() -> None:
    assert list(PUBLISHED) == list(NAMES)


def test_random_weights_are_said_to_be_tested(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cell = "candidate='|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|'"
    with initialize_config_dir(str(CONF), version_base="1.3"):
        sizes = ["data=digits", "data.split.train=10", "data.split.validation=10", "data.split.test=10"]
        small = ["space=nasbench201", "space.channels=2", "space.cells_per_stage=1", "tracking.tensorboard=false"]
        config = compose("train_final", [cell, "final.epochs=0", *small, *sizes])
    with caplog.at_level("INFO", "nas"):
        train_final.retrain(config, tmp_path)
    assert "what is tested are random weights" in caplog.text


@pytest.mark.parametrize(
    "space",
    [
        Darts(signature=Signature((3, 8, 8), 4)),
        Darts(steps=2, multiplier=1, operations=["noise", "sep_conv_3x3"], signature=Signature((3, 8, 8), 4)),
        NasBench201(signature=Signature((3, 8, 8), 4)),
        Recurrent(nodes=3, signature=Signature((35,), 20, "sequence", (20,))),
    ],
    ids=["darts", "small cells", "nasbench201", "recurrent"],
)
def test_what_is_found_is_written_as_other_code_bases_take_it(space: SearchSpace) -> None:
    architecture = space.sample(torch.Generator().manual_seed(0)).architecture
    text = published_text(space, architecture)
    assert text is not None
    assert named_architecture(text, lambda _: space)[1] == architecture


def test_a_published_cell_with_an_edge_left_out_is_taken() -> None:
    text = genotype_text(PUBLISHED["darts_v2"]).replace(
        "'skip_connect', 2), ('max_pool_3x3', 1)]", "'none', 2), ('none', 1)]"
    )
    space, architecture = named_architecture(text, lambda _: Darts(signature=Signature((3, 8, 8), 4)))
    assert published_text(space, architecture) == text
    assert isinstance(space, Darts)
    assert space.optional_edges


FAIR_DARTS = {
    "c": (
        "[('max_pool_3x3', 2, 0), ('sep_conv_5x5', 2, 1), ('dil_conv_3x3', 4, 0), ('dil_conv_5x5', 4, 2), "
        "('skip_connect', 5, 3), ('sep_conv_3x3', 5, 0)]",
        "[('dil_conv_3x3', 2, 1), ('dil_conv_5x5', 2, 0), ('dil_conv_3x3', 3, 0), ('sep_conv_3x3', 3, 1), "
        "('sep_conv_5x5', 4, 0), ('sep_conv_5x5', 4, 3), ('sep_conv_5x5', 5, 0), ('skip_connect', 5, 1)]",
    ),
    "a": (
        "[('sep_conv_3x3', 2, 0), ('sep_conv_5x5', 2, 1), ('max_pool_3x3', 4, 0), ('sep_conv_3x3', 5, 0)]",
        "[('max_pool_3x3', 2, 0), ('avg_pool_3x3', 2, 1), ('avg_pool_3x3', 3, 0), ('dil_conv_5x5', 3, 1), "
        "('avg_pool_3x3', 4, 0), ('sep_conv_5x5', 4, 1), ('skip_connect', 5, 0), ('skip_connect', 5, 1)]",
    ),
}


@pytest.mark.parametrize(("cell", "auxiliary", "millions"), [("c", False, 2.59), ("a", True, 2.83)])
def test_fairdarts_cells_have_their_published_sizes(cell: str, auxiliary: bool, millions: float) -> None:
    """In its genotypes.py: c without the auxiliary head, a with it. Node 3 of both normal cells has no edge."""
    normal, reduce = FAIR_DARTS[cell]
    text = f"Genotype(normal={normal}, normal_concat=range(2, 6), reduce={reduce}, reduce_concat=range(2, 6))"
    made_for = {"auxiliary": auxiliary, "signature": Signature((3, 32, 32), 10)}
    space, architecture = named_architecture(text, lambda name: Darts(**made_for))
    with torch.device("meta"):
        network = space.network(architecture)
    assert sum(one.numel() for one in network.parameters()) // 10_000 == round(100 * millions)
