"""Avatars: their labels are their options, and what Node.js draws shows them."""

import importlib.util
import shutil
import sys

import numpy as np
import pytest

from conftest import ROOT
from gen.data import Attributes
from gen.files import UnavailableError, WeightsError, cache_dir


@pytest.fixture(scope="module")
def avatars():
    sys.path.insert(0, str(ROOT / "data_prep"))
    try:
        spec = importlib.util.spec_from_file_location("avatars", ROOT / "data_prep/avatars.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(ROOT / "data_prep"))


@pytest.fixture(scope="module")
def made(avatars, tmp_path_factory):
    for package, (version, _) in avatars.PACKAGES.items():
        folder = cache_dir() / "npm" / f"{package.strip('@').replace('/', '-')}-{version}"
        if not list(folder.glob("[!.]*")):
            pytest.skip(f"{package} is not cached: gen prepare avatars fetches it")
    if not shutil.which("node"):
        pytest.skip("no Node.js")
    pytest.importorskip("resvg_py")
    out = tmp_path_factory.mktemp("avatars") / "set"
    avatars.prepare(out, size=48, train=24, val=6)
    return out


def test_labels_are_the_options_and_a_function_of_seed_and_number(avatars):
    names = [column.rpartition(":")[2] for column in avatars.COLUMNS]
    rows = []
    for i in range(300):
        options, labels = avatars.options_of(7, i)
        has = dict(zip(names, labels, strict=True))
        assert options["baseColor"] == [avatars.SKIN[next(n for n in avatars.SKIN if has[n])]]
        assert options["mouth"] == [next(n for n in avatars.MOUTH if has[n])]
        assert options["glassesProbability"] == 100 * has["glasses"]
        assert options["earringsProbability"] == 100 * has["earrings"]
        assert options["facialHairProbability"] == 100 * has["beard"]
        rows.append(labels)
    assert avatars.options_of(7, 5) == avatars.options_of(7, 5) != avatars.options_of(8, 5)
    share = np.mean(rows, 0)
    assert (np.abs(share[:6] - 1 / 3) < 0.1).all() and (np.abs(share[6:] - 1 / 2) < 0.1).all()
    assert np.abs(np.corrcoef(np.array(rows)[:, 6:].T) - np.eye(3)).max() < 0.2


def test_the_folder_is_read_with_its_groups(made):
    data = Attributes(str(made), img_size=48)
    assert data.labels.groups == [["light", "brown", "dark"], ["smile", "sad", "surprised"]]
    assert len(data.train) == 24 and len(data.val) == 6
    assert (data.train.values[:, :3].sum(1) == 1).all()


def test_pictures_show_their_skin(avatars, made):
    data = Attributes(str(made), img_size=48)
    for i in range(24):
        image = np.asarray(data.train.read(i)).reshape(-1, 3).astype(int)
        near = {}
        for name, colour in avatars.SKIN.items():
            rgb = np.array([int(colour[k : k + 2], 16) for k in (0, 2, 4)])
            near[name] = (np.abs(image - rgb).max(1) < 4).sum()
        names = data.labels.names[:3]
        assert max(near, key=near.get) == names[int(data.train.values[i, :3].argmax())]


def test_it_resumes_and_refuses_another_set(avatars, made, monkeypatch):
    first = (made / "train/00003.png").read_bytes()
    (made / "train/00003.png").unlink()
    avatars.prepare(made, size=48, train=24, val=6)
    assert (made / "train/00003.png").read_bytes() == first
    monkeypatch.setattr(avatars, "drawings", pytest.fail)  # nothing is drawn again
    assert avatars.prepare(made, size=48, train=24, val=6)["complete"]
    with pytest.raises(ValueError, match="expected size 64, got 48"):
        avatars.prepare(made, size=64, train=24, val=6)
    with pytest.raises(ValueError, match="expected 32 to 512 pixels"):
        avatars.prepare(made, size=16)


def test_what_node_lacks_is_told(avatars, tmp_path, monkeypatch):
    if shutil.which("node"):
        with pytest.raises(WeightsError, match="expected 1 avatars of Node.js 18 or later, got 0"):
            avatars.drawings(tmp_path, [{}])  # no packages there
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnavailableError, match="drawn by `node`, which is not installed"):
        avatars.drawings(tmp_path, [{}])
