"""Genotype texts are read by a parser and never executed."""

import random
from pathlib import Path

import pytest

from nas.errors import InvalidValue
from nas.interop.genotype_text import LONGEST_TEXT, find_genotypes, genotype_text, parse_genotype
from nas.interop.named_architecture import PUBLISHED
from nas.spaces.darts.genotype import Genotype

TEXT = (
    "Genotype(normal=[('sep_conv_3x3', 1), ('skip_connect', 0)], normal_concat=range(2, 3), "
    "reduce=[('max_pool_3x3', 0), ('none', 1)], reduce_concat=[2])"
)


@pytest.mark.parametrize("name", PUBLISHED)
def test_text_round_trip(name: str) -> None:
    text = genotype_text(PUBLISHED[name])
    assert parse_genotype(text) == PUBLISHED[name]
    assert genotype_text(parse_genotype(text)) == text


def test_it_prints_what_the_original_prints() -> None:
    assert genotype_text(parse_genotype(TEXT)) == TEXT.replace("[2]", "range(2, 3)")
    assert "reduce_concat=[3, 4, 6])" in genotype_text(PUBLISHED["amoebanet"])


def test_layout_quotes_order_and_trailing_commas_do_not_matter() -> None:
    text = """
      Genotype(
        reduce_concat = range( 2,3 ),
        reduce = [
          ("max_pool_3x3", 0),
          ("none", 1),
        ],
        normal_concat = [2,],
        normal = [('sep_conv_3x3', 1), ('skip_connect', 0)],
      )
    """
    assert parse_genotype(text) == parse_genotype(TEXT)


EDGES, ONE = "[('sep_conv_3x3', 1), ('skip_connect', 0)]", "range(2, 3)"


@pytest.mark.parametrize(
    ("written", "otherwise"),
    [
        (EDGES, "[[('sep_conv_3x3', 1), ('skip_connect', 0)]]"),  # pt.darts
        (EDGES, "[(('sep_conv_3x3', 1), ('skip_connect', 0)),]"),  # GDAS
        (EDGES, "(('sep_conv_3x3', 1), ('skip_connect', 0))"),
        (EDGES, '[["sep_conv_3x3", 1], ["skip_connect", 0]]'),  # JSON has no tuples
        ("'sep_conv_3x3'", "np.str_('sep_conv_3x3')"),
        (" 1)", " np.int64(1))"),
        (" 1)", " numpy.int32(1))"),
        (" 1)", " tensor(1))"),
        (ONE, "(2,)"),
        (ONE, "list(range(2, 3))"),
        (ONE, "tuple(range(2, 3))"),
        (ONE, "list([2])"),
        (ONE, "range(np.int64(2), np.int64(3))"),
        (ONE, "[np.int64(2)]"),
    ],
)
def test_what_forks_and_libraries_write_is_the_same_genotype(written: str, otherwise: str) -> None:
    assert parse_genotype(TEXT.replace(written, otherwise)) == parse_genotype(TEXT)


@pytest.mark.parametrize(
    ("written", "otherwise", "sentence"),
    [
        (EDGES, "[[('sep_conv_3x3', 1)]]", "must have the two edges of a node"),
        (EDGES, "[[[('sep_conv_3x3', 1), ('skip_connect', 0)]]]", "an operation's name in quotes"),
        (" 1)", " os.system(1))", "must have a whole number"),
        (" 1)", " np.load(1))", "must have a whole number"),
        (" 1)", " np.int64(1.5))", r"must have a \)"),
        (ONE, "list(range(2, 3)", r"must have a \)"),
        (ONE, "set(range(2, 3))", "a list of whole numbers or range"),
        (ONE, "list(list)", r"must have a \("),
        ("'sep_conv_3x3'", "'sep_conv_3X3'", r"normal\[0\]=sep_conv_3X3 .* must be one of none, noise, max_pool_3x3"),
        ("'skip_connect', 0", "'skip_connect', 2", r"normal\[1\]=2 .* a whole number from 0 to 1"),
    ],
)
def test_what_cannot_be_read_is_named_with_what_was_expected(written: str, otherwise: str, sentence: str) -> None:
    with pytest.raises(InvalidValue, match=sentence):
        parse_genotype(TEXT.replace(written, otherwise))


def test_edges_that_name_their_node_are_read_as_fairdarts_means_them() -> None:
    """Node 3 has no edge: it is no part of the output, and the edge of node 4 that would read it is left out."""
    cell = "[('sep_conv_3x3', 2, 0), ('sep_conv_5x5', 2, 1), ('skip_connect', 4, 3), ('max_pool_3x3', 4, 2)]"
    other = "[('avg_pool_3x3', 2, 1), ('max_pool_3x3', 3, 0), ('dil_conv_3x3', 3, 2)]"
    read = parse_genotype(
        f"Genotype(normal={cell}, normal_concat=range(2, 5), reduce={other}, reduce_concat=range(2, 4))"
    )
    assert isinstance(read, Genotype)
    assert read.normal[:2] == (("sep_conv_3x3", 0), ("sep_conv_5x5", 1))
    assert [operation for operation, _ in read.normal[2:4]] == ["none", "none"]
    assert read.normal[4:] == (("max_pool_3x3", 2), ("none", 0))
    assert read.normal_concat == (2, 4)
    assert read.reduce == (("avg_pool_3x3", 1), ("none", 0), ("max_pool_3x3", 0), ("dil_conv_3x3", 2))
    assert read.reduce_concat == (2, 3)
    for edge in ("('skip_connect', 4, 4)", "('skip_connect', 9, 3)", "('skip_connect', 2, 0)"):
        text = f"Genotype(normal={cell}, normal_concat=range(2, 5), reduce={other}, reduce_concat=range(2, 4))"
        with pytest.raises(InvalidValue, match=r"genotype\.normal=.* an earlier state"):
            parse_genotype(text.replace("('skip_connect', 4, 3)", edge))


@pytest.mark.parametrize(
    ("typed", "allowed"),
    [
        ("[2, 3000]", "it must be a list of different nodes, each a whole number from 2 to 17"),
        ("[2, 18]", "it must be a list of different nodes, each a whole number from 2 to 17"),
        ("[2, 2]", "it must be a list of different nodes, each a whole number from 2 to 17"),
        ("[]", "it must be a list of different nodes, each a whole number from 2 to 17"),
        ("[3]", "one of its nodes must have an edge in normal"),
    ],
)
def test_a_wrong_output_beside_edges_that_name_their_node_is_shown_as_typed(typed: str, allowed: str) -> None:
    cell = "[('sep_conv_3x3', 2, 0), ('sep_conv_5x5', 2, 1)]"
    with pytest.raises(InvalidValue) as caught:
        parse_genotype(f"Genotype(normal={cell}, normal_concat={typed}, reduce={cell}, reduce_concat=[2])")
    assert str(caught.value) == f"genotype.normal_concat={typed} is not allowed: {allowed}."


OTHER = TEXT.replace("('sep_conv_3x3', 1)", "('sep_conv_5x5', 1)")
LINE = "11/20 03:51:40 PM genotype = "


@pytest.mark.parametrize(
    "text",
    [
        "MINE = " + TEXT,
        LINE + TEXT + "\n11/20 03:51:41 PM train 000 2.3e+00\n",
        "# my best Genotype (of 50)\n" + TEXT,
        "class Genotype(NamedTuple): ...\n" + TEXT,
        "genotypes." + TEXT + ")",
        f"{TEXT}\n{TEXT}",  # the same twice
        f"{LINE}{OTHER}\n{LINE}{TEXT}\n",  # a search's log: the last is what it ended with
    ],
)
def test_a_genotype_is_found_whatever_stands_around_it(text: str) -> None:
    assert find_genotypes(text) == [parse_genotype(TEXT)]


def test_several_genotypes_are_all_found_where_none_is_the_last_of_a_search() -> None:
    both = [parse_genotype(OTHER), parse_genotype(TEXT)]
    assert find_genotypes(f"DARTS_V1 = {OTHER}\nDARTS_V2 = {TEXT}") == both
    assert find_genotypes(f"{LINE}{OTHER}\nMINE = {TEXT}") == both
    assert find_genotypes("no genotype at all") == []


def test_a_log_that_ends_within_its_last_genotype_is_refused() -> None:
    with pytest.raises(InvalidValue, match="it ends before"):
        find_genotypes(f"{LINE}{OTHER}\n{LINE}{TEXT[:33]}")


@pytest.mark.parametrize(
    "text",
    [
        None,
        b"Genotype()",
        "",
        "Genotype",
        "Genotype()",
        TEXT[:-1],
        TEXT + ")",
        TEXT + "; import os",
        TEXT + ".__class__",
        "nas." + TEXT,
        TEXT.replace("Genotype", "Phenotype"),
        TEXT.replace("normal=", "normal:", 1),
        TEXT.replace("normal=", "abnormal=", 1),
        TEXT.replace("'sep_conv_3x3'", "sep_conv_3x3"),
        TEXT.replace("'sep_conv_3x3'", "'sep_conv_3x3\""),
        TEXT.replace("'sep_conv_3x3'", "'sep' 'conv_3x3'"),
        TEXT.replace("'sep_conv_3x3'", "f'{1}'"),
        TEXT.replace("'sep_conv_3x3'", "'sep_conv_9x9'"),
        TEXT.replace("'sep_conv_3x3'", "__import__('os').system('true')"),
        TEXT.replace(" 1)", " -1)"),
        TEXT.replace(" 1)", " 1.0)"),
        TEXT.replace(" 1)", " 0x1)"),
        TEXT.replace(" 1)", " True)"),
        TEXT.replace(" 1)", " 99999999999999999999)"),
        TEXT.replace(" 1)", " 1, 2)"),
        TEXT.replace("range(2, 3)", "range(2)"),
        TEXT.replace("range(2, 3)", "range(2, 9999)"),
        TEXT.replace("range(2, 3)", "range(2, 3, 1)"),
        TEXT.replace("range(2, 3)", "list(2, 3)"),
        TEXT.replace("range(2, 3)", "[2 for x in y]"),
        TEXT.replace("range(2, 3)", "()"),
        TEXT.replace("[('sep_conv_3x3', 1), ('skip_connect', 0)]", "[]"),
        TEXT.replace("('skip_connect', 0)", "('skip_connect', 0),,"),
        TEXT.replace("Genotype(", "Genotype(normal=[('none', 0), ('none', 0)], "),
        TEXT.replace("reduce_concat=[2]", ""),
        TEXT.replace("reduce=", "lambda: 0, reduce="),
        "Genotype(normal=" + "[" * 5000,
        "(" * LONGEST_TEXT,
        TEXT + " " * LONGEST_TEXT,
        "Genotype(normal=[" + "('none', 0), " * 700 + "])",
    ],
)
def test_malformed_and_malicious_texts_are_refused(text: object) -> None:
    with pytest.raises(InvalidValue, match="genotype"):
        parse_genotype(text)


def test_nothing_is_executed(tmp_path: Path) -> None:
    witness = tmp_path / "executed"
    for place in ("Genotype", "'sep_conv_3x3'", "range(2, 3)", "[2]"):
        with pytest.raises(InvalidValue, match="genotype"):
            parse_genotype(TEXT.replace(place, f"open({str(witness)!r}, 'w')"))
    assert not witness.exists()


def test_any_damage_is_either_refused_or_still_a_genotype() -> None:
    source = random.Random(0)
    refused = 0
    for _ in range(2000):
        position = source.randrange(len(TEXT))
        damaged = TEXT[:position] + chr(source.randrange(32, 127)) + TEXT[position + source.randrange(2) :]
        try:
            genotype = parse_genotype(damaged)
        except InvalidValue:
            refused += 1
        else:
            assert parse_genotype(genotype_text(genotype)) == genotype
    assert refused > 1000
