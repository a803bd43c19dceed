"""Published weights of StarGAN v2 as checkpoints of ours: nothing is run, every tensor is checked.

Source: Choi et al., "StarGAN v2: Diverse Image Synthesis for Multiple Domains", CVPR 2020. Its
`<iterations>_nets_ema.ckpt` files are dicts of state dicts. Some files in use lack the fixed
high-pass kernel, hold a face network that their generator does not use, or have keys that begin
with "module."; all of these are read.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gen.convert.common import State, describe
from gen.files import WeightsError, sha256, without_suffix, write_atomic
from gen.networks.face_masks import FAN
from gen.networks.stargan import Generator, HighPass, MappingNetwork, StyleEncoder
from gen.pickles.files import read_pickle
from gen.weights import check_finite, save_safetensors

LICENCE = "CC BY-NC 4.0 (StarGAN v2 weights; non-commercial use only)"
WANTED = "the file <iterations>_nets_ema.ckpt that StarGAN v2 published or saved"
PARTS = ("generator", "mapping_network", "style_encoder")
DATA = {  # (domains, high-pass skip): name, domains, published FID and LPIPS by latents, references
    (2, True): ("CelebA-HQ", ["female", "male"], (13.73, 0.4515, 23.84, 0.3880)),
    (3, False): ("AFHQ", ["cat", "dog", "wild"], (16.18, 0.4501, 19.78, 0.4315)),
}


def import_starganv2(path: str | Path, out: str | Path, domains: Sequence[str] = ()) -> Path:
    """Converts StarGAN v2's averaged networks to .safetensors; returns the path of the card.

    Args:
        path: path of the published file; nothing in it is run.
        out: path of the .safetensors to write; the card goes beside it, as .md.
        domains: names of the domains, in the order of the labels; none: those of CelebA-HQ or AFHQ.

    Raises:
        WeightsError: the file is of another kind, or a tensor does not fit; expected and got.
        ValueError: `domains` do not fit the file.
    """
    if (out := Path(out)).suffix != ".safetensors":
        raise ValueError(f"out: expected a name that ends in .safetensors, got {out.name}")
    parts = read_parts(path)
    options = infer_options(parts, path)
    state = checked(parts, options, path)
    names = domain_names(options, domains)
    iterations = re.match(r"(\d+)_nets", Path(path).name)  # the file itself does not state it
    meta = dict(
        method="StarGAN",
        hparams=json.dumps(options),
        domains=json.dumps(names),
        iteration=iterations[1] if iterations else "0",
        licence=LICENCE,
        source=f"{Path(path).name}, sha256 {sha256(path)}",
    )
    save_safetensors(state, out, meta)
    card = Path(f"{without_suffix(out)}.md")
    write_atomic(card, card_text(out, meta, options, names).encode())
    return card


def read_parts(path: str | Path) -> dict[str, State]:
    """The state dicts in the file, by name of their network; keys without "module."."""
    file = read_pickle(path, WANTED)
    if not isinstance(file, dict):
        raise WeightsError(f"{path}: expected {WANTED}, a dict, got {type(file).__name__}")
    if missing := [name for name in PARTS if name not in file]:
        raise WeightsError(f"{path}: expected {WANTED}, with {missing[0]}, got {list(file)[:8]}")
    if others := set(file) - {*PARTS, "fan"}:
        raise WeightsError(
            f"{path}: expected {WANTED}, got {', '.join(sorted(map(str, others)))} in it too: "
            "<iterations>_nets.ckpt holds networks without averaging"
        )
    parts = {}
    for name, state in file.items():
        if not isinstance(state, dict):
            raise WeightsError(f"{path}: {name}: expected a state dict, got {type(state).__name__}")
        for key, value in state.items():
            if not isinstance(key, str) or not isinstance(value, Tensor):
                raise WeightsError(f"{path}: {name}.{key}: expected a tensor, got {value!r:.50}")
        parts[name] = {key.removeprefix("module."): value for key, value in state.items()}
    return parts


def infer_options(parts: dict[str, State], path: str | Path) -> dict[str, Any]:
    """Infers options of `StarGAN` from shapes and the high-pass kernel, whose centre is 8 / w_hpf.

    A generator with one more block than its image size needs has the high-pass skip. In a file
    without the kernel w_hpf is 1, the only published value.
    """

    def shape(part: str, key: str, ndim: int) -> torch.Size:
        got = parts[part].get(key)
        if got is None or got.ndim != ndim:
            raise WeightsError(
                f"{path}: {part}.{key}: expected {ndim} dimensions, got {describe(got)}"
            )
        return got.shape

    base = shape("generator", "from_rgb.weight", 4)[0]
    img_size = 2**14 // max(base, 1)
    if base * img_size != 2**14 or img_size < 16:
        raise WeightsError(
            f"{path}: generator.from_rgb.weight: expected 2**14 / img_size channels, got {base}"
        )
    blocks = {key.split(".")[1] for key in parts["generator"] if key.startswith("encode.")}
    w_hpf = 0.0
    if len(blocks) > math.log2(img_size) - 2:
        kernel = parts["generator"].get("hpf.filter", torch.full((3, 3), 8.0))
        w_hpf = 8 / kernel[1, 1].item() if kernel.shape == (3, 3) and kernel[1, 1] > 0 else 1.0
    heads = {key.split(".")[1] for key in parts["mapping_network"] if key.startswith("unshared.")}
    return dict(
        img_size=img_size,
        num_domains=len(heads),
        style_dim=shape("mapping_network", "unshared.0.6.weight", 2)[0],
        latent_dim=shape("mapping_network", "shared.0.weight", 2)[1],
        w_hpf=w_hpf,
    )


def domain_names(options: dict[str, Any], domains: Sequence[str]) -> list[str]:
    """`domains`, or the domains of the published data set with these options."""
    K, known = options["num_domains"], DATA.get((options["num_domains"], options["w_hpf"] > 0))
    names = list(domains) or (known[1] if known else [])
    if len(set(names)) != K or len(names) != K:
        raise ValueError(
            f"domains: expected {K} different names, in the order of the labels (sorted folders), "
            f"got {names}; give --domains"
        )
    return names


def checked(parts: dict[str, State], options: dict[str, Any], path: str | Path) -> State:
    """Returns all tensors under our names, after a check of every key, shape and dtype."""
    size, K, style_dim = options["img_size"], options["num_domains"], options["style_dim"]
    try:
        with torch.device("meta"):  # shapes alone
            networks = dict(
                generator=Generator(size, style_dim, options["w_hpf"]),
                mapping_network=MappingNetwork(options["latent_dim"], style_dim, K),
                style_encoder=StyleEncoder(size, style_dim, K),
            )
            if options["w_hpf"]:
                networks["fan"] = FAN()
    except Exception as error:  # sizes that no tensor can have
        raise WeightsError(
            f"{path}: expected {WANTED}, got one that tells {options}: {error!s:.200}"
        ) from error
    state = {}
    if options["w_hpf"]:
        if "fan" not in parts:
            raise WeightsError(
                f"{path}: expected the face network `fan` beside a generator with the high-pass "
                f"skip, got {list(parts)}; take the file as published, or as saved with w_hpf > 0"
            )
        kernel = HighPass(options["w_hpf"]).filter
        got = parts["generator"].setdefault("hpf.filter", kernel)
        if got.shape == kernel.shape and not torch.allclose(got.float(), kernel):
            raise WeightsError(
                f"{path}: generator.hpf.filter: expected {kernel.tolist()}, got {got.tolist()}"
            )
    for part, network in networks.items():
        wanted, got = network.state_dict(), parts[part]
        for key in [*wanted, *(key for key in got if key not in wanted)]:
            if describe(wanted.get(key)) != describe(got.get(key)):
                raise WeightsError(
                    f"{path}: {part}.{key}: expected {describe(wanted.get(key))}, got "
                    f"{describe(got.get(key))}; other tensors tell {options}: take the file as "
                    "published"
                )
        state |= {f"{part}.{key}": got[key] for key in wanted}
    check_finite(state, path)
    return state


def card_text(out: Path, meta: dict[str, str], options: dict[str, Any], names: list[str]) -> str:
    """Card in Markdown: content of the file, licence, usage, results of its authors."""
    size, face = options["img_size"], ", and the face network" if options["w_hpf"] else ""
    text = f"""# {without_suffix(out).name}

StarGAN v2: averaged generator, mapping network and style encoder{face}. Imported, not trained here.

- **Licence**: {LICENCE}.
- **Source**: {meta["source"]}.
- **Options**, inferred from its tensors: {", ".join(f"{k} {v}" for k, v in options.items())}.
- **Domains**: {", ".join(names)}. **Iterations**: {meta["iteration"]}.
- **Not inside**: a discriminator. With these options and `--model.init_from`, training starts with
  a fresh one.

```python
import torch, gen
model = gen.load("{out.name}")
x = torch.zeros(1, 3, {size}, {size})  # images in [-1, 1]
y = model.domains.index("{names[-1]}")
image = model.translate(x, y, z=torch.randn(1, model.latent_dim))
```
"""
    data, domains, scores = DATA.get((len(names), options["w_hpf"] > 0), ("", [], ()))
    if names != domains or size != 256:
        return text
    return f"""{text}
If the source is the published file of {data}, its authors measured (means of 10 seeds):

| guided by | FID | LPIPS diversity |
|---|---|---|
| latents | {scores[0]:.2f} | {scores[1]:.4f} |
| references | {scores[2]:.2f} | {scores[3]:.4f} |

10 outputs for every validation image and ordered pair of domains. FID is to the training images of
the target domain, in features of torchvision's Inception v3: not comparable with other FIDs. LPIPS
(AlexNet) is the mean distance of the 45 pairs of outputs of an image, which were not clamped there.
"""
