"""A space of a user's own, outside of the package: its promises are tried early, and every command takes it."""

import importlib
import json
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from nas.candidate import Range
from nas.configuration import CONFIGURATION
from nas.errors import InvalidValue, NotTrusted, RunFailed
from nas.evaluation.objective import CostPenalty
from nas.interop.export import write_for_other_programs
from nas.interop.standalone import standalone_source
from nas.report.outcome import space_figure
from nas.search.gradient_search import GradientSearch
from nas.search.result import SearchResult
from nas.signature import Signature
from nas.spaces import Darts, Macro, NasBench201, Recurrent, SearchSpace, Transformer, space_from_description
from nas.spaces.building import built_space
from nas.spaces.promises import check_promises
from nas.surroundings import typed_python
from nas.tasks import Classification
from tests.killing import assert_same_bytes, assert_same_results, killed_in_search
from tests.problems import digits, search_parts

ROOT = Path(__file__).resolve().parents[2]
FIRST = (ROOT / "tests" / "fixtures" / "first_space.py").read_text()
IMAGES = Signature((1, 8, 8), 3)
RANGES = {"dropout": Range(0.0, 0.9), "learning_rate": Range(1e-4, 1.0, "log")}
Module = Callable[[str], str]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Module]:
    """Writes a module outside of the package, and gives its name; a module is read once."""
    monkeypatch.syspath_prepend(str(tmp_path))
    names: list[str] = []

    def write(text: str) -> str:
        names.append(f"mine_{tmp_path.name}_{len(names)}")
        (tmp_path / f"{names[-1]}.py").write_text(text)
        return names[-1]

    yield write
    for name in names:
        sys.modules.pop(name, None)


def built(name: str, blocks: int = 3, kind: str = "Blocks") -> SearchSpace:
    settings = OmegaConf.create({"_target_": f"{name}.{kind}", "blocks": blocks})
    return built_space(settings, IMAGES, CONFIGURATION / "space", RANGES)


def test_it_is_built_without_a_random_number_drawn_and_written_down(module: Module, tmp_path: Path) -> None:
    before = torch.get_rng_state()
    space = built(module(FIRST))
    assert torch.equal(before, torch.get_rng_state())
    architecture = space.sample(torch.Generator().manual_seed(0)).architecture
    (tmp_path / "network.py").write_text(standalone_source(space, architecture, [0.5], [0.25], "mine"))
    network = space.network(architecture).eval()
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    alone = runpy.run_path(str(tmp_path / "network.py"))["load"](tmp_path / "weights.pt")
    images = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(alone(images), network(images))


def test_it_is_found_again_where_its_package_is_trusted(module: Module, monkeypatch: pytest.MonkeyPatch) -> None:
    name = module(FIRST)
    description = json.loads(json.dumps(built(name).describe()))
    assert space_from_description(description).choices == built(name).choices  # in the run that has imported it
    del sys.modules[name]
    told = rf"space\._target_={name}\.Blocks: if it is your own, say so with NAS_TRUST={name} in front of the command"
    with pytest.raises(NotTrusted, match=told):
        space_from_description(description)
    assert name not in sys.modules
    monkeypatch.setenv("NAS_TRUST", name)
    found = space_from_description(description)
    assert (type(found).__name__, found.settings()) == ("Blocks", {"width": 4, "blocks": 3})
    with pytest.raises(InvalidValue, match=r"^space\.settings=.*its from_settings raises TypeError: .* 'depth'"):
        space_from_description({**description, "settings": {"depth": 3}})
    for other in ("json.JSONDecoder", "json.nothing", "json", 3):
        with pytest.raises(InvalidValue, match=r"^space\._target_="):
            space_from_description({**description, "_target_": other})


def test_a_subclass_of_ours_comes_back_as_itself(module: Module) -> None:
    name = module("from nas.spaces import NasBench201\n\n\nclass Mine(NasBench201):\n    pass\n")
    target = {"_target_": f"{name}.Mine", "channels": 2, "cells_per_stage": 1}
    space = built_space(OmegaConf.create(target), IMAGES, CONFIGURATION / "space", RANGES)
    assert type(space_from_description(space.describe())).__name__ == "Mine"
    assert "_target_" not in NasBench201(signature=IMAGES).describe()


SMALL: dict[str, Callable[[], SearchSpace]] = {
    "macro": lambda: Macro(
        [
            {"type": "conv", "filters": [2, 4], "kernel_size": 3},
            {
                "choose": [
                    {"type": "conv", "filters": 4, "kernel_size": 3, "stride": 2},
                    {"type": "pool", "pool_size": 2},
                ]
            },
        ],
        ["relu", "tanh"],
        signature=IMAGES,
        ranges=RANGES,
    ),
    "nasbench201": lambda: NasBench201(2, 1, auxiliary_skip=True, signature=IMAGES, ranges=RANGES),
    "darts": lambda: Darts(
        channels=2, cells=3, steps=2, multiplier=2, final_channels=2, final_cells=3, signature=IMAGES, ranges=RANGES
    ),
    "recurrent": lambda: Recurrent(4, 6, 2, signature=Signature((5,), 7, "sequence", (7,)), ranges=RANGES),
    "transformer": lambda: Transformer(8, 1, 1, signature=Signature((5,), 2, "point", (7,), True), ranges=RANGES),
    "table": lambda: Macro(
        [{"type": "dense", "units": [3, 4], "optional": True}],
        ["relu"],
        signature=Signature((4,), 1, "point", (3,)),
        ranges=RANGES,
    ),
}


@pytest.mark.parametrize("name", list(SMALL))
def test_ours_keep_the_same_promises(name: str) -> None:
    space = SMALL[name]()
    check_promises(space, space.signature, RANGES)


HEAD = "return self.head(self.dropout(x))\n\n    def alpha_rows"
METHOD = "    def settings(self)"
MISTAKES: dict[str, tuple[str, str, str]] = {  # by name what is replaced, by what, and what is told
    "no name": ('    name = "blocks"\n', "", r"raises AttributeError: .* 'name', .*\.py, line \d+"),
    "no ranges": (", ranges: Any = None", "", "unexpected keyword argument 'ranges'"),
    "ranges kept": (
        "__init__(signature, ranges)",
        "__init__(signature)",
        r"must call super\(\).__init__\(signature, r",
    ),
    "numbers": ('("conv3", "conv5", "pool")', "(3, 5, 7)", r"block0=\(3, 5, 7\) is not .* a tuple of texts"),
    "tuples": ('Choice(f"block{number}", OPTIONS)', '("block", OPTIONS)', "they must be a tuple of Choice"),
    "one name": ('f"block{number}"', '"block"', "two of its choices are called block"),
    "slash": ('f"block{number}"', 'f"block/{number}"', "choice block/0 has a / in its name"),
    "settings": ('{"width": self.width, "blocks": self.blocks}', '{"width": self.width}', "then it has other choices"),
    "more settings": ('"blocks": self.blocks}', '"blocks": self.blocks, "more": 1}', "do not make it again: .* 'more'"),
    "tensor": ('{"width": self.width,', '{"width": torch.ones(1),', "what JSON has not"),
    "abstract": ("def settings(self)", "def setings(self)", "abstract: it lacks settings"),
    "nothing": ("return MixedNetwork(self", "MixedNetwork(self", "gives a NoneType, it must be a Supernet"),
    "no space": ("        self.space: Blocks = space\n", "", "must set self.space to the space"),
    "dot": ('self.alpha["blocks"]', 'self.alpha["my.blocks"]', "raises KeyError"),
    "alpha": (
        "initial((blocks, len(OPTIONS)))",
        "initial((blocks, 4))",
        r"'blocks' has shape \(3, 4\), and alpha_rows",
    ),
    "rows": (
        "(choice.name, choice.options) for",
        '("x" + choice.name, choice.options) for',
        "no row of alpha for block0",
    ),
    "order": (
        "in self.space.choices]\n\n    def inh",
        "in self.space.choices[::-1]]\n\n    def inh",
        "those of block. .* where it is",
    ),
    "unused weights": ("() if weights is None else weights", "()", r"does not use weights\['blocks'\]"),
    "unused row": (
        'zip(weights["blocks"],',
        'zip(weights["blocks"][1:],',
        "no layer of its supernet uses .* block0, row 0",
    ),
    "supernet": (
        "Head(width, space.outputs)",
        "Head(width, 7)",
        r"supernet\(x, weights\) gives \(3, 7\) .* must be \(3, 3\)",
    ),
    "network": (
        "self.head = Head(width, outputs)",
        "self.head = Head(width, 7)",
        r"network\(architecture\) of .* gives \(3, 7\)",
    ),
    "batch": (HEAD, HEAD.replace("(x))", "(x)).view(20, -1)", 1), r"raises RuntimeError: shape .\[20, -1\]"),
    "pair": (HEAD, HEAD.replace("(x))", "(x)), x", 1), "gives tuple for 3 inputs"),
    "infinite": (HEAD, HEAD.replace("(x))", "(x)) / 0", 1), "is not finite"),
    "in place": (
        "x = self.stem(x)\n        for row",
        "x = self.stem(x.mul_(2))\n        for row",
        "changes its inputs in place",
    ),
    "device": (
        "x = self.stem(x)\n        for row",
        "x = self.stem(x) * torch.ones(1, 1, 1, 1)\n        for row",
        "made and called on another device",
    ),
    "same weights": (
        "return Network(**self.network_arguments(architecture))",
        "return vars(self).setdefault((architecture, str(torch.zeros(()).device)), "
        "Network(**self.network_arguments(architecture)))",
        "gives the same weights twice",
    ),
    "drawn": (
        "self.dropout = Dropout()\n        self.head = Head(width, outputs)",
        "self.dropout = Dropout()\n        self.head = Head(width, outputs)\n        "
        "nn.init.constant_(self.head[2].bias, __import__('random').random())",
        "other weights at the same seed",
    ),
    "sample": (
        METHOD,
        "    def sample(self, generator):\n        return {}\n\n" + METHOD,
        "gives a dict, it must be a Candidate",
    ),
    "decode": (
        METHOD,
        "    def decode(self, vector):\n        return super().decode([1 - vector[0], *vector[1:]])\n\n" + METHOD,
        r"decode\(encode\(candidate\)\) gives",
    ),
    "repair": (
        METHOD,
        "    def repair(self, indices, generator):\n        return indices[1:]\n\n" + METHOD,
        "gives 2 numbers, and it has 3",
    ),
    "conditions": (
        METHOD,
        "    def conditions(self):\n        return {'block0': ('type', 'conv')}\n\n" + METHOD,
        r"conditions\(\) have block0",
    ),
    "words": (
        METHOD,
        "    def layer_descriptions(self, one):\n        return list(one.values())\n\n" + METHOD,
        "must be LayerDescriptions",
    ),
    "weights": ('return {"blocks": weights}', 'return {"blocks": weights.T}', r"has \(3, 3\) .* shape|those of block"),
    "cost": (
        "return fixed + ",
        "return 0 * fixed + ",
        r"expected_cost .* counts [\d,]+ parameters, and its network has",
    ),
    "inherited": ("parts.insert(2,", "parts.insert(1,", r"inherited_state\(architecture\) raises KeyError"),
    "dataclass": ("class Blocks(", "@__import__('dataclasses').dataclass\nclass Blocks(", "unhashable type"),
}


@pytest.mark.parametrize("name", list(MISTAKES))
def test_a_mistake_is_told_in_one_sentence_before_the_run(name: str, module: Module) -> None:
    old, new, told = MISTAKES[name]
    assert old in FIRST
    with pytest.raises(InvalidValue, match=told) as caught:
        built(module(FIRST.replace(old, new)))
    assert "\n" not in str(caught.value)


def test_a_module_that_is_not_found_is_said_to_be_missing() -> None:
    with pytest.raises(InvalidValue, match=r"\(No module named 'mine_nowhere': is its folder on PYTHONPATH\?\)"):
        built("mine_nowhere")


def test_a_class_that_is_no_space_or_cannot_be_found_again_is_refused(module: Module) -> None:
    with pytest.raises(InvalidValue, match=r"must be a subclass of nas\.spaces\.SearchSpace"):
        built(module("class Blocks:\n    def __init__(self, blocks, *, signature, ranges):\n        pass\n"))
    hidden = (
        FIRST + "\n\ndef Hidden(blocks: int, **given: Any) -> Any:\n    return type('Hidden', (Blocks,), {})(**given)\n"
    )
    with pytest.raises(InvalidValue, match="its class is no name at the top level of"):
        built(module(hidden), kind="Hidden")


def test_what_supernet_and_network_compute_apart_is_said(module: Module, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="nas")
    built(module(FIRST))
    assert not caplog.messages
    built(module(FIRST.replace('zip(weights["blocks"],', 'zip(weights["blocks"].flip(0),')))
    assert "its supernet at architecture_weights of block0" in caplog.messages[-1]


def test_costs_and_inherited_weights_are_optional(module: Module) -> None:
    text = FIRST.replace("def expected_cost", "def none_cost").replace("def inherited_state", "def none_state")
    space = built(module(text))
    CostPenalty(0.0, {"parameters": 1.0}, space)
    with pytest.raises(InvalidValue, match=r"^cost_weight=0.1 .* space=blocks has no expected_cost"):
        CostPenalty(0.1, {"parameters": 1.0}, space)


def test_a_layer_of_any_kind_is_drawn(module: Module) -> None:
    words = "        return [LayerDescription('gate', one, two) for one, two in architecture.items()]\n\n"
    method = "    def layer_descriptions(self, architecture):\n" + words + METHOD
    imported = "from nas.spaces.space import LayerDescription\n"
    space = built(module(FIRST.replace(METHOD, method).replace("OPTIONS =", imported + "\nOPTIONS =", 1)))
    space_figure(space, space.sample(torch.Generator().manual_seed(0)).architecture)


def test_a_killed_search_of_it_goes_on_as_if_nothing_had_happened(module: Module, tmp_path: Path) -> None:
    splits, name = digits(), module(FIRST)
    settings = OmegaConf.create({"_target_": f"{name}.Blocks", "blocks": 2})

    def search(folder: str) -> SearchResult:
        space = built_space(settings, splits.signature, CONFIGURATION / "space")
        return GradientSearch(search_parts(tmp_path / folder, splits=splits, space=space)).search()

    whole = search("whole")
    with killed_in_search(0, step=5):
        search("killed")
    assert_same_results(search("killed"), whole)
    assert_same_bytes(tmp_path / "whole", tmp_path / "killed")


def test_a_network_that_cannot_be_exported_is_told_in_one_sentence(module: Module, tmp_path: Path) -> None:
    branch = "        if float(x.detach().mean()) > 100:\n            x = x / 2\n        for block in self.blocks"
    name = module(FIRST.replace("        for block in self.blocks", branch, 1))
    splits = digits()
    kind = importlib.import_module(name).Blocks
    space = kind(signature=splits.signature)
    architecture = space.sample(torch.Generator().manual_seed(0)).architecture
    task, splits = Classification().fitted(splits)
    given = (space.network(architecture), space, architecture, splits, task, tmp_path, "mine", "torch_export", True)
    with pytest.raises(RunFailed, match=r"^Network cannot be exported to torch_export \(.*; the result is in "):
        write_for_other_programs(*given)


class Outside:
    """A folder of a researcher's own with a space in it, and the commands that are called there."""

    def __init__(self, folder: Path, package: str, kind: str, settings: str) -> None:
        self.folder, self.package = folder, package
        (folder / "conf" / "space").mkdir(parents=True)
        (folder / "conf" / "space" / "mine.yaml").write_text(f"_target_: {package}.{kind}\n{settings}")
        labels = np.arange(120) % 3
        images = 0.3 * np.random.default_rng(0).normal(size=(120, 1, 8, 8))
        images[np.arange(120), 0, 2 * labels] += 2
        np.savez(folder / "data.npz", x=images.astype("float32"), y=labels)

    def call(self, *arguments: str, trust: bool = False) -> tuple[int, str, str]:
        environment = {one: value for one, value in os.environ.items() if one != "NAS_TRUST"}
        environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{self.folder}"}
        environment |= {"NAS_TRUST": self.package} if trust else {}
        command = [sys.executable, *arguments]
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=600)
        return done.returncode, done.stdout, done.stderr

    def search(self, *arguments: str) -> list[str]:
        data = (
            "data=arrays",
            "data.file=data.npz",
            "data.layout=NCHW",
            "data.epoch_samples=0",
            "training.batch_size=20",
        )
        sizes = ("search.epochs=2", "final.epochs=2", "training.batch_size=20")
        script = str(ROOT / "train_search.py")
        return [script, "--config-dir", "conf", "space=mine", *data, *sizes, "tracking.tensorboard=false", *arguments]


def sibling(folder: Path) -> Outside:
    """NAS-Bench-201, copied as a package of another name; nothing but names is changed."""
    package = folder / "minecells"
    shutil.copytree(ROOT / "nas" / "spaces" / "nasbench201", package, ignore=shutil.ignore_patterns("__pycache__"))
    for file in package.glob("*.py"):
        text = file.read_text().replace("nas.spaces.nasbench201", "minecells").replace("NasBench201", "MineCells")
        file.write_text(text.replace('"nasbench201"', '"minecells"'))
    return Outside(folder, "minecells", "MineCells", "channels: 2\ncells_per_stage: 1\n")


def test_a_sibling_copied_out_of_the_package_goes_the_whole_way(tmp_path: Path) -> None:
    mine = sibling(tmp_path)
    code, output, error = mine.call(*mine.search("hydra.run.dir=run"))
    assert (code, error) == (0, "")
    final = str(ROOT / "train_final.py")
    python = typed_python() if typed_python() == "python" else sys.executable
    assert f"next: NAS_TRUST=minecells {python} {final} candidate={tmp_path / 'run'}" in output
    page = (tmp_path / "run" / "report.html").read_text()
    assert f"NAS_TRUST=minecells {python} -m nas.report why" in page
    asked = "if it is your own, say so with NAS_TRUST=minecells in front of the command."
    for command in ((final, "candidate=run/candidate.json"), ("-m", "nas.report", "run")):
        code, _, error = mine.call(*command)
        assert (code, error.count("\n"), asked in error) == (2, 1, True)
    assert (tmp_path / "run" / "report.html").read_text() == page
    code, output, error = mine.call(final, "candidate=run", trust=True)
    assert (code, error) == (0, "")
    assert f"next: NAS_TRUST=minecells {python} -m nas.report predict run <new samples>" in output
    for trust, ended in ((False, 2), (True, 0)):
        code, output, error = mine.call("-m", "nas.report", "predict", "run", "data.npz", trust=trust)
        assert (code, "predicted 120 images" in output) == (ended, trust), error
    assert asked in mine.call("-m", "nas.report", "predict", "run", "data.npz")[2]
    network = runpy.run_path(str(tmp_path / "run" / "final" / "network.py"))
    outputs = network["load"](tmp_path / "run" / "final" / "weights.pt")(torch.zeros(2, 1, 8, 8))
    assert outputs.shape == (2, 3)
    assert "minecells" not in (tmp_path / "run" / "final" / "network.py").read_text().replace("MineCells", "")
