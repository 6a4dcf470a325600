"""Exported networks compute what the trained network computes."""

import json
import runpy
import subprocess
import sys
import warnings

import pytest
import torch
import torch.nn.functional as F

from nas.data.augmentation import Augmentation
from nas.data.pictures.embedded import Digits
from nas.data.stratified_split import SplitSettings
from nas.errors import InvalidValue
from nas.interop.bundled_source import bundled_source
from nas.interop.export import FILES, ExportDiffers, export_network
from nas.interop.standalone import standalone_source
from nas.signature import Signature
from nas.spaces.darts.network import DartsNetwork
from nas.spaces.darts.space import Darts
from nas.spaces.macro.space import Macro
from nas.spaces.nasbench201.space import NasBench201
from nas.training import retraining
from nas.training.retraining import FinalSettings, missing_packages
from tests.problems import RANKS, batch_of, space_of_rank

LAYERS = [
    {"type": "conv", "filters": [4, 8], "kernel_size": [1, 3]},
    {"type": "pool", "pool_size": [2, 3], "kind": ["max", "average"]},
    {"type": "conv", "filters": [4, 8], "kernel_size": 3, "optional": True, "activations": ["softplus", "gelu", "elu"]},
    {"type": "dense", "units": [8, 16]},
]
BOUND = {"signature": Signature((1, 8, 8), 10)}
SPACES = {
    "macro": lambda: Macro(LAYERS, ["relu", "sigmoid"], **BOUND),
    "darts": lambda: Darts(final_channels=2, final_cells=3, auxiliary=True, **BOUND),
    "darts_imagenet": lambda: Darts(final_channels=2, final_cells=3, final_network="imagenet", **BOUND),
    "nasbench201": lambda: NasBench201(channels=2, cells_per_stage=1, **BOUND),
}


@pytest.fixture(scope="module")
def splits():
    none = Augmentation(crop_padding=0, flip=False, cutout=0)
    return Digits(SplitSettings(train=1000, validation=400, test=397, seed=0), none).load()


@pytest.fixture(scope="module")
def test_images(splits):
    """Real test images, normalised."""
    return next(iter(splits.test.evaluation_batches(32, splits.mean, splits.std))).inputs


@pytest.fixture(scope="module")
def trained(splits):
    """Per space an architecture and its network after a few steps on real images."""

    def train(name):
        if name not in made:
            torch.manual_seed(1)
            space = SPACES[name]()
            architecture = space.sample(torch.Generator().manual_seed(5)).architecture
            network = space.network(architecture)
            optimiser = torch.optim.SGD(network.parameters(), lr=0.05)
            batches = splits.train.evaluation_batches(64, splits.mean, splits.std)
            for _ in range(4):
                batch = next(batches)
                output = network(batch.inputs)
                loss = F.cross_entropy(output[0] if isinstance(output, tuple) else output, batch.targets)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
            made[name] = space, architecture, network.eval()
        return made[name]

    made = {}
    return train


@pytest.fixture(scope="module")
def folder_of_files(trained, test_images, splits, tmp_path_factory):
    """A folder with every space's file and weights, and another process's logits, which can import torch only."""
    folder = tmp_path_factory.mktemp("standalone")
    torch.save(test_images, folder / "images.pt")
    for name in SPACES:
        space, architecture, network = trained(name)
        source = standalone_source(space, architecture, splits.mean, splits.std, f'"found" \\ on {name}\n!')
        (folder / f"{name}.py").write_text(source)
        torch.save(network.state_dict(), folder / f"{name}.pt")
    script = (
        "import sys; sys.path.insert(0, '.')\n"
        "import importlib, torch\n"
        "images = torch.load('images.pt', weights_only=True)\n"
        f"for name in {list(SPACES)}:\n"
        "    network = importlib.import_module(name).load(f'{name}.pt')\n"
        "    with torch.no_grad(): torch.save(network(images), f'{name}.logits.pt')\n"
        "print(sorted(one for one in sys.modules if one.split('.')[0] in ('nas', 'torchvision', 'omegaconf')))\n"
    )
    (folder / "run.py").write_text(script)
    done = subprocess.run([sys.executable, "-I", "run.py"], cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"  # nothing of this package, nor of what it depends on
    return folder


@pytest.mark.parametrize("name", SPACES)
def test_the_standalone_file_gives_the_trained_networks_logits(name, folder_of_files, trained, test_images):
    with torch.no_grad():
        expected = trained(name)[2](test_images)
    assert torch.equal(torch.load(folder_of_files / f"{name}.logits.pt", weights_only=True), expected)


@pytest.mark.parametrize("name", SPACES)
def test_the_standalone_file_is_short_and_holds_only_the_operations_in_use(name, folder_of_files, trained):
    source = (folder_of_files / f"{name}.py").read_text()
    assert len(source.splitlines()) < 350
    assert "import nas" not in source
    assert "from nas" not in source
    space, architecture, _ = trained(name)
    if isinstance(space, Darts):
        used = set(space.genotype(architecture).operations())
        assert [one for one in space.operations if f"'{one}': lambda" in source] == [
            one for one in space.operations if one in used and one != "skip_connect"
        ]


def test_bundled_definitions_stand_before_their_use():
    source = bundled_source(DartsNetwork)
    places = [source.index(text) for text in ("class StochasticLayer", "class Dropout", "class DartsNetwork")]
    assert places == sorted(places)
    assert ": Tensor" not in source
    assert ") ->" not in source


def test_a_space_that_does_not_say_how_its_networks_are_made_is_named():
    class Own(NasBench201):
        name = "own"
        network_arguments = Macro.network_arguments

    space = Own(channels=2, cells_per_stage=1, **BOUND)
    architecture = space.sample(torch.Generator().manual_seed(0)).architecture
    with pytest.raises(InvalidValue, match="space=own is not allowed"):
        standalone_source(space, architecture, [0.5], [0.5], "own")


def ranked(name):
    """A space of a rank and a head, an architecture and its network, and inputs."""
    torch.manual_seed(1)
    space = space_of_rank(name)
    architecture = space.sample(torch.Generator().manual_seed(2)).architecture
    return space, architecture, space.network(architecture).eval(), batch_of(space.signature, 3, size=7).inputs.float()


@pytest.mark.parametrize("name", RANKS)
def test_the_standalone_file_of_every_rank_gives_the_networks_outputs(name, tmp_path):
    space, architecture, network, inputs = ranked(name)
    source = standalone_source(space, architecture, [0.0], [1.0], name)
    assert "nas" not in source
    assert f"(batch, {', '.join(map(str, space.input_shape))})" in source
    (tmp_path / "network.py").write_text(source)
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    again = runpy.run_path(str(tmp_path / "network.py"))["load"](tmp_path / "weights.pt")
    assert torch.equal(again(inputs), network(inputs))


@pytest.mark.parametrize("kind", [pytest.param("onnx", marks=pytest.mark.slow), "torch_export"])
@pytest.mark.parametrize("name", ["rows with categories", "series pooled over all", "maps of images"])
def test_the_exported_file_of_every_rank_gives_the_networks_outputs(name, kind, tmp_path):
    needs(kind)
    _, _, network, inputs = ranked(name)
    _, difference = export_network(network, kind, tmp_path, inputs)
    assert difference <= 1e-5


def needs(kind):
    lacking = missing_packages(kind)
    if lacking:
        pytest.skip(f"{', '.join(lacking)} is not installed: pip install -e .[export]")


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) for name in SPACES])
def test_the_exported_file_gives_the_trained_networks_logits(name, kind, trained, test_images, tmp_path):
    """Read back here once more and run on another number of images than it was exported with."""
    needs(kind)
    network = trained(name)[2]
    path, difference = export_network(network, kind, tmp_path, test_images)
    assert [file.name for file in tmp_path.iterdir()] == [FILES[kind]]
    with torch.no_grad():
        expected = network(test_images[:7])
        if kind == "onnx":
            import onnxruntime

            session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
            logits = torch.from_numpy(session.run(["logits"], {"images": test_images[:7].numpy()})[0])
        else:
            logits = torch.export.load(path).module()(test_images[:7])
    assert (logits - expected).abs().max() <= 1e-5
    assert difference <= 1e-5 * max(1.0, float(network(test_images).abs().max()))


def test_a_small_chain_is_exported_and_checked(trained, test_images, tmp_path):
    network = trained("macro")[2].to(memory_format=torch.channels_last)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "No complete tensor")
        path, difference = export_network(network, "torch_export", tmp_path, test_images)
    assert path == tmp_path / "network.pt2"
    assert difference <= 1e-5


def test_an_exported_file_holds_no_auxiliary_head(trained, test_images, tmp_path):
    network = trained("darts")[2]
    path, _ = export_network(network, "torch_export", tmp_path, test_images)
    assert not any("auxiliary" in name for name in torch.export.load(path).state_dict)
    assert network.auxiliary_head is not None


@pytest.mark.slow
def test_an_onnx_file_has_the_names_of_its_classes(trained, test_images, tmp_path):
    needs("onnx")
    import onnxruntime

    names = [f"class {number}: ü" for number in range(10)]
    path, _ = export_network(trained("macro")[2], "onnx", tmp_path, test_images, names)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert json.loads(session.get_modelmeta().custom_metadata_map["class_names"]) == names
    assert [file.name for file in tmp_path.iterdir()] == ["network.onnx"]


def test_the_names_of_many_classes_stand_in_short_lines():
    space = Macro(LAYERS, ["relu"], signature=Signature((1, 8, 8), 300))
    architecture = space.sample(torch.Generator().manual_seed(5)).architecture
    names = [f"n{number:08} 'quoted'\n" for number in range(300)]
    source = standalone_source(space, architecture, [0.5], [0.5], "many", names)
    assert max(map(len, source.splitlines())) <= 120
    made = {}
    exec(compile(source, "network", "exec"), made)
    assert made["CLASSES"] == tuple(names)


def test_a_file_with_other_logits_is_removed(trained, test_images, tmp_path, monkeypatch):
    from nas.interop import export

    def wrong(network, path, images):
        path.write_text("file")
        return network(images) + 0.001

    monkeypatch.setattr(export, "_torch_export", wrong)
    with pytest.raises(ExportDiffers, match=r"differ from the network's by 0\.001"):
        export_network(trained("macro")[2], "torch_export", tmp_path, test_images)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_named_before_anything_runs(monkeypatch):

    settings = {"epochs": 1, "hyperparameters": "learned", "checkpoint": None, "label_smoothing": 0.0}
    settings |= {"auxiliary_weight": 0.4, "drop_path_schedule": "linear", "checkpoint_every": 10}
    assert FinalSettings(**settings, export="torch_export").export == "torch_export"
    monkeypatch.setitem(retraining.NEEDED, "onnx", ("a_package_that_is_not_there",))
    with pytest.raises(InvalidValue, match=r"export=onnx is not allowed: it needs a_package_that_is_not_there: pip"):
        FinalSettings(**settings, export="onnx")
