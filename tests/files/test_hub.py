"""Checkpoints on a Hub, both directions, against a server on this machine."""

import json
import logging
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

import gen
import hub_server
from conftest import ROOT
from gen import checkpoint, hub, shipped
from gen.bench import jobs
from gen.checkpoint import export
from gen.files import UnavailableError, WeightsError, sha256
from gen.verbs import demo, push, verify
from gen.weights import load_safetensors, save_safetensors
from runs import fit

NAME = "hf://me/faces"
FILE = ROOT / "checkpoints/domain_classifier_emoji64.safetensors"


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A running Hub that knows this user, and an empty cache."""
    import huggingface_hub.constants as constants

    with hub_server.serve() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        monkeypatch.setenv("HF_TOKEN", hub_server.TOKEN)
        monkeypatch.setenv("GEN_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # another server
        hosts = frozenset(["127.0.0.1"])  # read from HF_ENDPOINT when the library is imported
        monkeypatch.setattr(constants, "HF_URL_HOSTS", hosts, raising=False)
        monkeypatch.chdir(tmp_path)
        yield running


@pytest.fixture
def one(server):
    """A Hub with one repository; its commit."""
    server.first = server.commit("me/faces", {hub.FILE: FILE.read_bytes(), "README.md": b"hello"})
    return server


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run, with a config and a picture."""
    folder = tmp_path_factory.mktemp("run")
    fit("StarGAN", folder, steps=1)
    (folder / "samples").mkdir(exist_ok=True)
    for name in ("000001.png", "000002.png"):
        (folder / "samples" / name).write_bytes(b"\x89PNG" + name.encode())
    return folder


def other(path: Path, add: float = 1.0) -> bytes:
    """The bytes of another checkpoint of the same method."""
    tensors, meta = load_safetensors(FILE)
    first = next(iter(tensors))
    save_safetensors(tensors | {first: tensors[first] + add}, path, meta)
    return path.read_bytes()


def same(a, b) -> bool:
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


# ---- loading ------------------------------------------------------------------------------------


def test_a_name_is_loaded_as_the_file_is(one):
    loaded, local = gen.load(NAME), gen.load(FILE)
    assert same(loaded, local) and loaded.domains == local.domains
    x = torch.rand(2, 3, 64, 64) * 2 - 1
    assert torch.equal(loaded.classify(x), local.classify(x))
    assert sha256(checkpoint.find(NAME)) == sha256(FILE)


def test_only_the_weights_are_fetched_and_only_once(one, tmp_path):
    found = {checkpoint.find(Path(NAME)), checkpoint.find(NAME), checkpoint.find(NAME)}
    assert len(found) == 1 and tmp_path / "cache" in next(iter(found)).parents
    fetched = [line for line in one.seen if line.startswith("GET") and "/api/" not in line]
    assert fetched == [f"GET /cdn/{sha256(FILE)}"]
    files = [p.name for p in (tmp_path / "cache/hub").rglob("*") if p.is_file()]
    assert "README.md" not in files and hub.FILE in files


def test_a_small_file_that_is_in_git_itself_is_compared_too(one, tmp_path, monkeypatch):
    one.commit("me/small", {hub.FILE: b"small"})
    assert checkpoint.find("hf://me/small").read_bytes() == b"small"
    with pytest.raises(WeightsError, match="small.*expected a safetensors file"):
        gen.load("hf://me/small")
    one.commit("me/other", {hub.FILE: b"other"})
    monkeypatch.setattr(hub_server, "git_id", lambda data: "0" * 40)
    with pytest.raises(WeightsError, match=f"expected {hub.FILE} with hash 0{{40}}"):
        gen.load("hf://me/other")


def test_a_revision_is_that_revision(one, tmp_path):
    one.tags["me/faces", "v1"] = one.first
    second = one.commit("me/faces", {hub.FILE: other(tmp_path / "b.safetensors")})
    assert same(gen.load(NAME), gen.load(tmp_path / "b.safetensors"))
    for revision in ("v1", one.first):
        assert same(gen.load(f"{NAME}@{revision}"), gen.load(FILE))
    assert checkpoint.find(NAME).parent.name == second
    one.commit("me/faces", {hub.FILE: other(tmp_path / "c.safetensors", 2.0)})
    assert same(gen.load(NAME), gen.load(tmp_path / "c.safetensors")), "main has moved on"


def test_a_commit_that_is_in_the_cache_asks_nobody(one):
    name = f"{NAME}@{one.first}"
    checkpoint.find(name)
    before = [*one.seen]
    assert same(gen.load(name), gen.load(FILE)) and one.seen == before


def test_a_shipped_checkpoint_comes_from_where_the_manifest_says(one, tmp_path, monkeypatch):
    name, url = FILE.stem, f"{NAME}@{one.first}"
    entry = shipped.manifest()[name]._replace(url=url)
    monkeypatch.setattr(shipped, "manifest", lambda: {name: entry})
    monkeypatch.setattr(shipped, "PACKAGE", tmp_path / "site-packages/gen")
    assert same(gen.load(name), gen.load(FILE))
    entry = entry._replace(sha256="0" * 64)
    with pytest.raises(WeightsError, match=f"0{{64}}, got {sha256(FILE)} from {url}: the Hub has"):
        gen.load(name)


@pytest.mark.parametrize("gone", ["server", "offline", "error"])
def test_without_the_hub_the_cache_is_used_and_told(one, caplog, monkeypatch, gone):
    import huggingface_hub.constants as constants

    checkpoint.find(NAME)
    if gone == "server":
        one.stop()
    if gone == "offline":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    if gone == "error":
        one.broken["GET /api/models"] = 503
    with caplog.at_level(logging.WARNING, "gen.hub"):
        assert same(gen.load(NAME), gen.load(FILE))
    told = [r.getMessage() for r in caplog.records if r.name == "gen.hub"]
    assert told and all("does not answer" in t and t.endswith(f"commit {one.first}") for t in told)
    with pytest.raises(UnavailableError, match="hf://me/more: expected http.* to answer, got"):
        gen.load("hf://me/more")
    with pytest.raises(UnavailableError, match="hf://me/faces@v2.*nothing of it is in the cache"):
        gen.load(f"{NAME}@v2")


def mistakes(server) -> dict[str, str]:
    """Name -> the one line that it gets."""
    server.commit("me/pickle", {"pytorch_model.bin": b"\x80\x02", "last.ckpt": b"PK"})
    server.commit("me/private", {hub.FILE: b"x"})
    server.private.add("me/private")
    server.commit("me/gated", {hub.FILE: b"x"})
    server.gated.add("me/gated")
    one_line = {
        "hf://me/none": "expected a repository that you may use, got none of this name, or one ",
        "hf://me/private": "check the name, or log in with `hf auth login`, or set HF_TOKEN$",
        "hf://me/gated": "whose conditions you have to accept on its page first",
        "hf://me/faces@v9": "expected a branch, tag or commit after @, got one that does not exist",
        "hf://me/pickle": r"expected model.safetensors, .* got \['pytorch_model.bin', 'last.ckpt'\]"
        ".*pickles least of all: ask its owner, or see gen import$",
        "hf://me": "expected hf://OWNER/NAME or hf://OWNER/NAME@REVISION, got another form",
        "hf://me/faces/model.safetensors": "expected hf://OWNER/NAME or",
        "hf://me/../../x": "expected hf://OWNER/NAME or",
        "hf://../faces": "expected hf://OWNER/NAME or",
        "hf://me/faces@": "expected hf://OWNER/NAME or",
        "hf://me/faces@../x": "expected hf://OWNER/NAME or",
    }
    return {name: f"^{re.escape(name)}: .*{line}" for name, line in one_line.items()}


def test_each_mistake_is_one_line_with_the_way_out(one, monkeypatch):
    told = mistakes(one)
    monkeypatch.setenv("HF_TOKEN", "")
    for name, line in told.items():
        with pytest.raises(WeightsError, match=line) as error:
            gen.load(name)
        assert "\n" not in str(error.value), name
    assert [line for line in one.seen if "bin" in line or "ckpt" in line] == []


def test_a_private_repository_opens_with_its_token(one):
    one.private.add("me/faces")
    assert same(gen.load(NAME), gen.load(FILE))
    assert not [line for line in one.seen if "PUT" in line or "POST" in line]


def test_another_file_than_the_hub_says_is_refused_and_not_kept(one, tmp_path):
    digest, data = sha256(FILE), bytearray(FILE.read_bytes())
    data[-1] ^= 1
    one.served[digest] = bytes(data)
    for _ in range(2):
        with pytest.raises(WeightsError, match=f"^{NAME}: expected .* hash {digest}, as the Hub"):
            gen.load(NAME)
        assert not [p for p in (tmp_path / "cache/hub").rglob("*") if p.stat().st_size > 10**6]
    one.served.clear()
    assert same(gen.load(NAME), gen.load(FILE))


def test_a_file_of_another_size_is_refused(one, tmp_path):
    one.served[sha256(FILE)] = b"short"
    with pytest.raises(UnavailableError, match=f"^{NAME}: .*; check the network") as error:
        gen.load(NAME)
    assert "\n" not in str(error.value)
    assert not [*(tmp_path / "cache/hub").rglob(hub.FILE)]


def test_a_file_that_is_too_large_is_not_fetched(one, monkeypatch):
    size = FILE.stat().st_size
    monkeypatch.setattr(hub, "MAX_BYTES", size - 1)
    with pytest.raises(WeightsError, match=f"at most {size - 1} bytes, got {size}; fetch it by"):
        gen.load(NAME)
    assert not [line for line in one.seen if "cdn" in line or "resolve" in line]


def test_a_file_is_trusted_no_more_than_a_local_one(one, tmp_path):
    tensors, meta = load_safetensors(FILE)
    cases = {
        "a file of another program": ({}, tensors, "expected what `gen fit`"),
        "changed tensors": (
            meta | {"sha256": "0" * 64}, tensors, "expected tensors of sha256 0000",
        ),
        "an unknown method": (meta | {"method": "os.system"}, tensors, "a method of gen.methods"),
        "absurd options": (
            meta | {"hparams": json.dumps({"num_domains": "x"})}, tensors, "num_domains: expected",
        ),
    }  # fmt: skip
    for k, (changed, state, told) in enumerate(cases.values()):
        save_file(state, tmp_path / "x.safetensors", changed)
        one.commit(f"me/bad{k}", {hub.FILE: (tmp_path / "x.safetensors").read_bytes()})
        for path in (f"hf://me/bad{k}", tmp_path / "x.safetensors"):
            with pytest.raises(WeightsError, match=told):
                gen.load(path)


def test_a_full_disk_is_told_as_one(one, monkeypatch):
    import huggingface_hub

    def full(**_):
        raise OSError(28, "No space left on device", "x")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", full)
    with pytest.raises(OSError, match="No space left") as error:
        checkpoint.find(NAME)
    assert error.value.errno == 28


def test_one_place_resolves_names(one, monkeypatch, capsys):
    assert shipped.is_name(NAME) and shipped.is_name(Path(NAME)) and verify.is_checkpoint(NAME)
    assert not shipped.is_name("hf") and not shipped.is_name(FILE)
    assert jobs._digests([NAME, "else"]) == {NAME: sha256(FILE)}
    assert "(faces)" in demo.knows(NAME, gen.load(NAME), 3)
    assert shipped.stem(f"{NAME}@v1") == Path("faces@v1") and shipped.stem("a/b.ckpt") == Path(
        "a/b"
    )
    monkeypatch.setattr(sys, "argv", ["gen"])
    with pytest.raises(SystemExit) as end:
        verify.main([NAME])
    line = capsys.readouterr().out
    assert end.value.code == 0 and one.first in line and sha256(FILE) in line


def test_training_starts_from_a_name(server, run, tmp_path):
    export(run / "last.ckpt", tmp_path / "a.safetensors")
    server.commit("me/gan", {hub.FILE: (tmp_path / "a.safetensors").read_bytes()})
    assert fit("StarGAN", tmp_path / "tuned", steps=1, init_from="hf://me/gan").is_file()
    with pytest.raises(WeightsError, match="got none of this name"):
        fit("StarGAN", tmp_path / "none", steps=1, init_from="hf://me/none")


def test_without_the_library_it_says_how_to_install_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ModuleNotFoundError, match="pip install huggingface-hub"):
        gen.load(NAME)
    with pytest.raises(SystemExit, match=r'expected the extra hub.*pip install -e "\.\[hub\]"'):
        push.main([str(FILE), "me/faces", "--data", "emoji"])


def test_import_gen_does_not_import_the_library():
    code = "import gen, gen.shipped, gen.hub, sys; assert 'huggingface_hub' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


# ---- sending ------------------------------------------------------------------------------------


def measured(run: Path, **row) -> Path:
    """Rows of an evaluation of the run's last.ckpt."""
    common = dict(protocol="p", count=4, better="higher", seed=777, ci95=[0.25, 0.75], data="heads")
    common |= dict(checkpoint_sha256=sha256(run / "last.ckpt"), versions={})
    rows = [common | dict(metric=name, value=0.5) | row for name in ("ps", "bear>cat/ps")]
    (run / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return run


@pytest.fixture
def mine(run, tmp_path):
    """The run, with metrics, in the current folder."""
    shutil.copytree(run, tmp_path / "runs/mine")
    return measured(tmp_path / "runs/mine")


def test_what_is_pushed_is_loaded_again(server, mine, capsys):
    push.main(["runs/mine", "me/gan", "--license", "cc-by-4.0"])
    [commit] = re.findall(r'gen.load\("hf://me/gan@(\w{40})"\)', capsys.readouterr().out)
    loaded, local = gen.load(f"hf://me/gan@{commit}"), gen.load("runs/mine")
    export("runs/mine", "exported.safetensors")
    assert same(loaded, gen.load("exported.safetensors"))
    x, z = torch.rand(1, 3, 32, 32), torch.randn(1, loaded.latent_dim)
    assert torch.equal(loaded.translate(x, 1, z=z), local.translate(x, 1, z=z))
    files = server.repos["me/gan"][commit]
    assert {*files} == {
        ".gitattributes", "README.md", "000002.png", "config.yaml", "metrics.jsonl", hub.FILE,
    }  # fmt: skip
    assert files["config.yaml"] == (mine / "config.yaml").read_bytes()


def test_the_card_has_the_metrics_as_the_hub_reads_them(server, mine, capsys):
    from huggingface_hub import ModelCard

    push.main(["runs/mine", "me/gan", "--license", "cc-by-4.0", "--private"])
    text = [*server.repos["me/gan"].values()][-1]["README.md"].decode()
    assert "me/gan" in server.private
    head = yaml.safe_load(text.split("---")[1])
    assert head["license"] == "cc-by-4.0" and head["pipeline_tag"] == "image-to-image"
    [model] = head["model-index"]
    [result] = model["results"]
    assert model["name"] == "gan" and result["dataset"] == {"name": "heads", "type": "heads"}
    wanted = dict(count=4, ci95=[0.25, 0.75], seed=777, better="higher")
    assert result["metrics"] == [dict(type="ps", value=0.5, config="p", args=wanted)]
    [found] = ModelCard(text).data.eval_results
    assert (found.metric_type, found.metric_value) == ("ps", 0.5)
    assert "| `ps` | 0.5000 | 0.2500 – 0.7500 | 4 | higher |" in text
    assert "`StarGAN`, a translator between bear, cat, dog" in text and "![000002.png]" in text
    assert 'gen.load("hf://me/gan")' in text and "bear>cat" not in text


def test_a_dry_run_sends_nothing_and_needs_no_network(server, mine, monkeypatch, capsys):
    server.stop()
    monkeypatch.setenv("HF_TOKEN", "")
    push.main(["runs/mine", "me/gan", "--dry-run"])
    told = capsys.readouterr().out
    for name in ("config.yaml", "metrics.jsonl", "000002.png", hub.FILE, "README.md"):
        assert re.search(rf"^{name} +\d+\.\d\d MiB", told, re.M), name
    assert "model-index:" in told and f"nothing was sent to {server.url}/me/gan" in told
    assert server.seen == []


def pushed(server, *words) -> dict[str, bytes]:
    """The files of a push into a new repository."""
    repo = f"me/new{len(server.repos)}"
    push.main([*map(str, words), repo])
    return [*server.repos[repo].values()][-1]


def test_what_lies_beside_a_checkpoint_stays(server, mine, capsys):
    """Pictures, configs and metrics of others, in its folder, are not sent."""
    (mine / "holiday.png").write_bytes(b"\x89PNG")
    (mine / "last_holiday.gif").write_bytes(b"GIF")
    (mine / "last_grid.png").write_bytes(b"\x89PNG grid")
    (mine / "samples/holiday.png").write_bytes(b"\x89PNG")
    sent = {*pushed(server, mine)}
    ours = {".gitattributes", "README.md", hub.FILE, "last_grid.png"}
    assert sent == ours | {"000002.png", "config.yaml", "metrics.jsonl"}
    assert "last_holiday" not in (told := capsys.readouterr().out) and told.find("000002.png") > 0
    text = (mine / "config.yaml").read_text()
    for other in ("a: b\n", "- 1\n", text.replace("methods.StarGAN", "methods.Other"), "{"):
        (mine / "config.yaml").write_text(other)
        assert {*pushed(server, mine)} == ours
    (mine / "config.yaml").unlink()
    assert {*pushed(server, mine)} == ours


def test_metrics_state_their_data(server, mine, capsys):
    server.stop()
    command = ["runs/mine", "me/gan", "--dry-run"]
    for rows in (dict(data=None), dict(data="faces")):
        measured(mine, **rows)
        if not rows["data"]:
            with pytest.raises(SystemExit, match="error: --data: .*metrics.jsonl was measured on"):
                push.main(command)
            push.main([*command, "--data", "faces"])
        else:
            push.main(command)
        assert "Measured on faces." in capsys.readouterr().out
    both = (mine / "metrics.jsonl").read_text()
    measured(mine, data="heads")
    with open(mine / "metrics.jsonl", "a") as file:
        file.write(both)
    with pytest.raises(SystemExit, match="as it states faces, heads"):
        push.main(command)


def test_chosen_metrics_are_checked_and_shown_whatever_their_name(server, mine, capsys):
    (mine / "metrics.jsonl").rename("values.json")
    files = pushed(server, mine, "--metrics", "values.json")
    assert "| `ps` | 0.5000 |" in files["README.md"].decode() and "values.json" in files
    measured(mine, checkpoint_sha256="0" * 64)
    (mine / "metrics.jsonl").rename("values.json")
    with pytest.raises(
        SystemExit, match="^error: values.json: expected metrics of .* got those of"
    ):
        push.main(["runs/mine", "me/gan", "--metrics", "values.json"])


def test_twice_is_once(server, mine, capsys):
    push.main(["runs/mine", "me/gan"])
    before = [*server.repos["me/gan"]]
    sent = len([line for line in server.seen if line.startswith("PUT")])
    push.main(["runs/mine", "hf://me/gan"])
    assert [*server.repos["me/gan"]] == before and sent > 0
    assert len([line for line in server.seen if line.startswith("PUT")]) == sent


@pytest.mark.parametrize("part", ["PUT /lfs", "/commit/", "/preupload/", "/objects/batch"])
def test_an_interrupted_upload_changes_nothing_and_goes_on(one, part, monkeypatch, tmp_path):
    (tmp_path / "a.safetensors").write_bytes(other(tmp_path / "a.safetensors"))
    import huggingface_hub.utils._http as http

    monkeypatch.setattr(http.time, "sleep", lambda _: None)  # it tries again
    before = {**one.repos["me/faces"]}
    for status in (500, 0):
        one.broken[part] = status
        with pytest.raises(SystemExit, match=f"^error: {NAME}: .*run the same command again$"):
            push.main(["a.safetensors", "me/faces"])
        assert one.repos["me/faces"] == before and same(gen.load(NAME), gen.load(FILE))
    one.broken.clear()
    push.main(["a.safetensors", "me/faces"])
    assert same(gen.load(NAME), gen.load("a.safetensors"))


@pytest.mark.parametrize("token", ["", "hf_wrong"])
def test_who_may_not_write_is_told(one, monkeypatch, token):
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(SystemExit, match="^error: hf://me/faces: .*log in with `hf auth login`"):
        push.main([str(FILE), "me/faces", "--data", "emoji"])
    assert len(one.repos["me/faces"]) == 1


def test_a_token_without_the_right_to_write_is_told(one):
    one.broken["/commit/"] = 403
    with pytest.raises(SystemExit, match="a token with the right to do this, got .*broken for a"):
        push.main([str(FILE), "me/faces", "--data", "emoji"])


def test_a_shipped_checkpoint_takes_its_card_rows_and_pictures(server, capsys):
    push.main(["smooth_i2i_emoji64", "me/smooth", "--data", "emoji"])
    files = [*server.repos["me/smooth"].values()][-1]
    pictures = {f"smooth_i2i_emoji64_{k}.png" for k in ("grid", "strips")}
    assert pictures < {*files} and "config.yaml" not in files
    card, text = (ROOT / "checkpoints/smooth_i2i_emoji64.md").read_text(), files["README.md"]
    assert text.decode().endswith(card.strip() + "\n") and text.startswith(b"---\n")
    head = yaml.safe_load(text.decode().split("\n---\n")[0])
    metrics = head["model-index"][0]["results"][0]["metrics"]
    rows = map(json.loads, (ROOT / "checkpoints/smooth_i2i_emoji64.jsonl").open())
    assert {m["type"]: m["value"] for m in metrics} == {
        row["metric"]: row["value"] for row in rows if ">" not in row["metric"]
    }
    assert files[hub.FILE] == (ROOT / "checkpoints/smooth_i2i_emoji64.safetensors").read_bytes()


@pytest.mark.parametrize(
    "words, told",
    [
        (["smooth_i2i_emoji64", "me/x"], "--data: expected the name of what .* was measured on"),
        (["smooth_i2i_emoji64", "me"], "hf://me: expected hf://OWNER/NAME"),
        (["smooth_i2i_emoji64", "me/x@v1"], "expected OWNER/NAME, got a revision, v1"),
        (["none.safetensors", "me/x"], "none.safetensors: expected a checkpoint, or the folder"),
        (["smooth_i2i_emoji64", "me/x", "--metrics", "no.jsonl"], "no.jsonl"),
    ],
)
def test_mistakes_of_a_push_are_told_before_anything_is_sent(server, words, told):
    with pytest.raises(SystemExit, match=f"^error: .*{told}"):
        push.main(words)
    assert server.seen == []


def test_metrics_of_another_checkpoint_are_refused(server, mine):
    measured(mine, checkpoint_sha256="0" * 64)
    with pytest.raises(SystemExit, match=r"metrics.jsonl: expected metrics of .*got .*0000"):
        push.main(["runs/mine", "me/gan"])
    assert server.seen == []


def test_an_export_is_the_same_bytes_each_time(run, tmp_path):
    code = "import sys; from gen.checkpoint import export; export(*sys.argv[1:])"
    files = [tmp_path / "0.safetensors", tmp_path / "1.safetensors"]
    export(run / "last.ckpt", files[0])  # the order of a hash table differs between processes
    subprocess.run([sys.executable, "-c", code, run / "last.ckpt", files[1]], cwd=ROOT, check=True)
    assert sha256(files[0]) == sha256(files[1])
    _, meta = load_safetensors(files[0])
    assert [*meta] and meta["method"] == "StarGAN"


def test_as_a_user_does_it(one, tmp_path):
    """Commands of their own processes, with HF_ENDPOINT, HF_TOKEN and nothing replaced."""
    own = dict(HF_HUB_DISABLE_XET="1", OMP_NUM_THREADS="1")

    def command(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "gen", *words],
            cwd=tmp_path, env=os.environ | own, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    command("push", str(FILE), "me/new")
    told = command("verify", "hf://me/new")
    assert "DomainClassifier, a classifier" in told and sha256(FILE) in told
    assert [*one.repos["me/new"]][-1] in told
