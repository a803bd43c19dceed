"""What a GPU would refuse or wait for, found without one: see `fake_gpu`."""

from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import gen.methods
from fake_gpu import DeviceError, Fake, fake_gpu, on_host
from gen.callbacks import Last
from gen.commands import best_device
from gen.devices import Arrival
from gen.inference.editing import possible
from gen.interpolation import alphas
from gen.methods.spatial_entropy import SpatialEntropy
from gen.metrics import attention, extractors, fidelity, localization, path_length
from gen.metrics.smoothness import smoothness
from gen.metrics.video import psnr
from gen.networks.face_masks import FAN, CoordConv, Hourglass
from gen.weights import save_safetensors
from harness import bare
from runs import (
    CLASSIFIER,
    EDITED,
    ENCODER,
    EVERYTHING,
    GENERATOR,
    STYLE_FUNCTION,
    VIT,
    WIDTHS,
    rows,
)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Such small networks are faster so."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_the_fake_gpu_refuses_what_a_gpu_refuses():
    with fake_gpu() as gpu:
        x = torch.randn(4, 3, device=gpu.device, requires_grad=True)
        (x * x).sum().backward()
        assert isinstance(x.grad, Fake) and x.grad.device == gpu.device
        generator = torch.Generator().manual_seed(0)
        for wrong in (
            lambda: x + torch.ones(3),
            lambda: torch.equal(x, torch.ones(4, 3)),
            lambda: torch.randn(3, generator=generator, device=gpu.device),
            lambda: torch.cat([x, torch.ones(1, 3)]),
            lambda: x.detach().numpy(),
        ):
            with pytest.raises(DeviceError):
                wrong()


def test_the_fake_gpu_counts_what_makes_the_host_wait():
    with fake_gpu() as gpu:
        x, on_host = torch.ones(4, 3, device=gpu.device), torch.ones(4, 3)
        pinned = on_host.pin_memory()
        free = (
            lambda: pinned.to(gpu.device, non_blocking=True) + x * 2,
            lambda: x.to("cpu", non_blocking=True),
            lambda: x[1:, 0] + x.new_zeros(3) + torch.full((), 2.0, device=gpu.device),
            lambda: torch.where(x > 0, x, 0)[torch.arange(2, device=gpu.device)],
        )
        for call in free:
            call()
        assert not gpu.waits
        for call in (
            lambda: on_host.to(x),
            lambda: on_host.to(gpu.device, non_blocking=True),
            lambda: pinned.to(gpu.device),
            lambda: x.cpu(),
            lambda: float(x.sum()),
            lambda: bool((x > 0).all()),
            lambda: x.tolist(),
            lambda: x[[0, 1]],
            lambda: x[torch.tensor([0, 1])],
            lambda: x[x > 0],
            lambda: x.new_tensor([1.0, 2.0]),
            lambda: torch.tensor([1.0], device=gpu.device),
            lambda: x.nonzero(),
            lambda: x.unique(),
            lambda: x.copy_(on_host),
        ):
            gpu.waits.clear()
            call()
            assert gpu.waits.total() == 1, (gpu.waits, call.__code__.co_firstlineno)


def test_pretrained_weights_start_a_run_on_a_gpu(tmp_path):
    path = tmp_path / "w.safetensors"
    save_safetensors(SpatialEntropy(**VIT, seed=1).net.state_dict(), path, {})
    method = SpatialEntropy(**VIT, pretrained_file=str(path), mixup=0.0, cutmix=0.0)
    given = SpatialEntropy(**VIT, seed=1).net.state_dict()
    with fake_gpu() as gpu:
        gpu.take(method).load_init()
    for network in (method.net, method.ema.module["net"]):
        found = network.state_dict()
        assert all(torch.equal(on_host(found[k]), v) for k, v in given.items() if "head" not in k)


# ---- an iteration -------------------------------------------------------------------------------


def images(n=4, seed=0):
    return torch.rand(n, 3, 32, 32, generator=torch.Generator().manual_seed(seed)) * 2 - 1


Y = torch.tensor([0, 1, 1, 0])
TRANSLATED = {name: images(seed=i) for i, name in enumerate(("x", "x_ref", "x_ref2"))}
TRANSLATED |= dict(y=Y, y_ref=1 - Y)
LABELS = {f"attributes{which}": torch.eye(6)[:4] for which in ("", "_ref", "_ref2")}
LABELS |= {f"factors{which}": images()[:, 0, 0, :4] for which in ("", "_ref", "_ref2")}
GENERATED, CODES = dict(x=images(), y=Y), dict(z=images()[:, 0, 0, :8])
ADA = dict(ada_target=0.6, augment="bgcf")
FEATURES = WIDTHS | ADA | dict(lambda_mix=0.5, lambda_other=0.5, lambda_fm=0.5, lambda_tri=1.0)
MORE = ADA | dict(lambda_cont=1.0, lambda_match=0.5, lambda_other=0.5, lambda_fm=0.5)
STEPS = {  # name: method, options, batch
    "StarGAN": ("StarGAN", WIDTHS, TRANSLATED),
    "single_d_step": ("StarGAN", WIDTHS | dict(single_d_step=True, r1_every=2), TRANSLATED),
    "relativistic": (
        "StarGAN", WIDTHS | ADA | dict(adversarial="relativistic", antialias=True, ema_warmup=True),
        TRANSLATED,
    ),
    "SmoothI2I": ("SmoothI2I", WIDTHS | EVERYTHING | MORE, TRANSLATED),
    "features": ("SmoothI2I", FEATURES | dict(discriminator="features"), TRANSLATED),
    "both": ("SmoothI2I", FEATURES | dict(discriminator="both"), TRANSLATED),
    "pairwise": ("SmoothI2I", WIDTHS | EVERYTHING | dict(shrink="pairwise"), TRANSLATED),
    "StyleGAN2": ("StyleGAN2", GENERATOR | dict(augment="bgcfnc"), GENERATED),
    "conditional": ("StyleGAN2", GENERATOR | dict(conditional=True, num_domains=2), GENERATED),
    "StyleFunction": ("StyleFunction", STYLE_FUNCTION, CODES),
    "W": ("StyleFunction", STYLE_FUNCTION | dict(space="W", first_row=2), CODES),
    "LinearDirections": ("LinearDirections", EDITED, CODES),
    "StepwiseEditor": ("StepwiseEditor", EDITED | dict(hidden=16), CODES),
    "InversionEncoder": ("InversionEncoder", ENCODER, GENERATED),
    "SpatialEntropy": ("SpatialEntropy", VIT, GENERATED),
    "variation": ("SpatialEntropy", VIT | dict(regularizer="total_variation"), GENERATED),
    "decorrelation": ("SpatialEntropy", VIT | dict(regularizer="head_decorrelation"), GENERATED),
    "DomainClassifier": ("DomainClassifier", CLASSIFIER, TRANSLATED),
    "AttributeClassifier": (
        "AttributeClassifier", CLASSIFIER | dict(factors="a,b,c,d"), TRANSLATED | LABELS,
    ),
} | rows("STEPS")  # fmt: skip


UNORDERED = {
    "relativistic",
    "SmoothI2I",
    "features",
    "both",
    "StyleGAN2",
    "conditional",
    *rows("UNORDERED"),
}


class Judge(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, 6))
        self.net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 6))

    def split(self, outputs):
        return outputs, None

    def logits(self, x):
        return x.mean((2, 3)) @ self.weight


class Apart(nn.Module):
    """In place of LPIPS."""

    def forward(self, x, y):
        return (x - y).square().mean((1, 2, 3))


def on_gpu(gpu, name: str):
    """A method without a trainer, and its batch."""
    kind, options, batch = STEPS[name]
    method = bare(getattr(gen.methods, kind))(**options)
    trainer = dict(max_steps=40, max_epochs=-1, estimated_stepping_batches=40, world_size=1)
    method._trainer = SimpleNamespace(**trainer, log_every_n_steps=2, datamodule=None)
    if name == "StarGAN":  # looks at validation images, too
        val = [dict(x=x, y=int(y)) for x, y in zip(images(seed=9), Y, strict=True)]
        method._trainer.datamodule = SimpleNamespace(val=val)
    if kind not in ("StyleFunction", "LinearDirections", "StepwiseEditor"):
        method._lpips = (Apart(),)
    else:
        method._judges = (gpu.take(Judge()), Apart())
    if hasattr(getattr(method, "discriminator", None), "attach"):
        method.discriminator.attach()
        gpu.take(method.discriminator._classifier[0])  # no part of it
    method.ada_on_host = torch.tensor(0.9)  # of StyleGAN2: most is augmented
    return gpu.take(method), gpu.send(batch() if callable(batch) else batch)


def iterate(method, batch, iteration: int) -> None:
    type(method).global_step = iteration
    loss = method.training_step(batch)
    if loss is not None:
        loss.backward()
        for optimizer in method.optimizers():
            optimizer.step()
            optimizer.zero_grad()
        if hasattr(method, "ema"):
            method.average()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", STEPS)
def test_an_iteration_waits_for_nothing_and_mixes_no_devices(features, name, precision):
    with fake_gpu() as gpu:
        method, batch = on_gpu(gpu, name)
        for iteration in (0, 1):  # every regulariser is due at 0; 1 adapts the augmentation
            with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bf16"):
                iterate(method, batch, iteration)
        assert not gpu.waits
        assert bool(gpu.unordered) == (name in UNORDERED)
        method.check_finite()


def test_what_has_no_kernels_of_one_order_is_told():
    """All of `UNORDERED` augment, or have a row of their own."""
    told = (Path(__file__).parents[2] / "README.md").read_text()
    assert "On a CPU a resumed run gives the same bits" in told
    assert "--trainer.deterministic true" in told
    for name in UNORDERED:
        assert name in rows("UNORDERED") or STEPS[name][1]["ada_target"], name


def test_the_batch_of_all_devices_is_told(caplog):
    method = gen.methods.DomainClassifier(**CLASSIFIER)
    trainer = dict(
        accumulate_grad_batches=1, ckpt_path="x", datamodule=SimpleNamespace(batch_size=4),
        precision="32-true",
    )  # fmt: skip
    for method._trainer in (SimpleNamespace(world_size=n, **trainer) for n in (1, 8)):
        with caplog.at_level("INFO"):
            method.on_fit_start()
    (message,) = caplog.messages
    assert message.startswith("batch: 4 on each of 8 devices, 32 an iteration")
    told = (Path(__file__).parents[2] / "README.md").read_text()
    assert "an iteration is printed; `--trainer.devices 1` takes one" in told


def test_masks_of_faces_wait_for_nothing(monkeypatch):
    monkeypatch.setattr(FAN, "forward", lambda self, x: self.l0.weight.new_ones(len(x), 99, 64, 64))
    fan = FAN()
    fan.loaded = True
    with fake_gpu() as gpu:
        coarse, fine = gpu.take(fan).masks(gpu.send(images()))
        assert not gpu.waits and isinstance(coarse, Fake) and isinstance(fine, Fake)
        gpu.take(CoordConv(3, 4, 3))(gpu.send(images()))  # the parts of the network above
        gpu.take(Hourglass(8, 2))(gpu.send(images().repeat(1, 3, 1, 1)[:, :8]))
        assert not gpu.waits


class Two(SimpleNamespace):
    """A trainer of two processes, the other of which is told to stop at `at`."""

    def __init__(self, device, at: int):
        super().__init__(world_size=2, global_step=1, should_stop=False, strategy=self, at=at)
        self.root_device = device

    def reduce(self, tensor, reduce_op):
        assert reduce_op == "sum"
        return tensor + (self.global_step >= self.at)

    def save_checkpoint(self, path, weights_only):
        self.saved = self.global_step


def test_processes_agree_to_stop_without_a_wait(tmp_path):
    last = Last(tmp_path / "last.ckpt")
    with fake_gpu() as gpu:
        trainer = Two(gpu.device, at=2)
        for trainer.global_step in (1, 2):
            last.on_train_batch_end(trainer, None)
            assert not trainer.should_stop
        trainer.global_step = 3  # the answer to what was asked at 2 is there
        last.on_train_batch_end(trainer, None)
        assert trainer.should_stop and trainer.saved == 3 and not gpu.waits
    last = Last(tmp_path / "last.ckpt")
    trainer = Two(torch.device("cpu"), at=2)
    for trainer.global_step in (1, 2):
        last.on_train_batch_end(trainer, None)
    assert trainer.should_stop and trainer.saved == 2


# ---- other devices ------------------------------------------------------------------------------


def on_mps(gpu) -> dict:
    """Measures that count in float64."""
    rng = torch.Generator().manual_seed(0)
    maps, truth = torch.randn(2, 3, 4, 4, generator=rng), torch.ones(2, 8, 8, dtype=torch.int64)
    truth[:, :4] = 0
    video, steps = torch.rand(2, 3, 3, 8, 8, generator=rng), torch.rand(2, 4, generator=rng)
    maps, truth, video, steps = gpu.send((maps, truth, video, steps))
    return {
        "smoothness": smoothness(steps, steps.sum(1))["ps"],
        "equal arcs": alphas(5, "uniform", steps),
        "jaccard": attention.jaccard(attention.foreground(maps), truth)[0],
        "auroc": attention.auroc(maps, truth)[0],
        "mass": attention.mass_on_object(maps, truth)[0],
        "corloc": localization.corloc(maps[:, 0], truth)[0],
        "pointing": localization.pointing(maps[:, 0], truth)[0],
        "norms": localization.norm_outliers(video.flatten(2)),
        "psnr": psnr(video, 0.9 * video, torch.ones_like(video[:, :, :1])),
        "possible": possible(truth[:, 0, :4].float()),
    } | {name: measure(gpu) for name, measure in rows("ON_MPS").items()}


def test_mps_is_asked_for_no_float64():
    with fake_gpu("mps:0") as gpu:
        found = on_mps(gpu)
    with fake_gpu() as gpu:
        wanted = on_mps(gpu)
    for name, value in wanted.items():
        assert torch.equal(on_host(found[name]), on_host(value)), name


@pytest.mark.parametrize("name", STEPS)
def test_an_iteration_on_mps_has_no_float64(features, name):
    with fake_gpu("mps:0") as gpu:
        method, batch = on_gpu(gpu, name)
        iterate(method, batch, 0)  # every regulariser is due
        method.check_finite()


@pytest.mark.parametrize("device, waits", [("cuda:0", 0), ("mps:0", 1)])
def test_a_copy_from_mps_has_arrived_when_it_is_read(device, waits):
    """An event of CUDA says when; without one, the copy itself has to wait."""
    with fake_gpu(device) as gpu:
        sent = Arrival(gpu.send(torch.arange(3.0)))
        assert gpu.waits.total() == waits and sent.value().tolist() == [0, 1, 2]


@pytest.mark.parametrize("cuda, mps, best", [(1, 0, "cuda"), (0, 1, "mps"), (0, 0, "cpu")])
def test_the_best_device_of_this_machine(monkeypatch, cuda, mps, best):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(cuda))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: bool(mps))
    assert best_device() == best


def test_what_torch_fidelity_cannot_do_on_mps_runs_on_the_cpu(monkeypatch, caplog):
    made = []
    monkeypatch.setattr(extractors, "create_feature_extractor", lambda *_, **__: nn.Linear(2, 2))
    with fake_gpu("mps:0") as gpu, caplog.at_level("INFO"):
        made.append(extractors.load_backbone("effnetlite0", device=gpu.device))
        assert made[0].weight.device.type == "cpu"
        [line] = caplog.messages
        assert line == "backbone effnetlite0: runs on the CPU, as torch-fidelity knows no MPS"

        def generate(z):
            assert z.device == gpu.device
            return z

        z = torch.randn(2, 4)
        found = path_length._Generator(generate, 4, 0, gpu.device)(z)
        assert torch.equal(found, z) and found.device.type == "cpu"
    with pytest.raises(ValueError, match="device: expected cpu, cuda or mps, got xpu"):
        extractors.load_backbone("effnetlite0", device="xpu")


def test_other_peoples_code_computes_on_the_device_that_is_asked_for(monkeypatch):
    """`--device cuda:1`: `.cuda()` inside torch-fidelity is that of the current device."""
    entered = []

    @contextmanager
    def device(which):
        entered.append(which)
        yield
        entered.pop()

    def calculate(*_, cuda, **__):
        assert cuda and entered == [torch.device("cuda:1")]
        return {path_length.torch_fidelity.KEY_METRIC_PPL_RAW: np.ones(4)}

    monkeypatch.setattr(torch.cuda, "device", device)
    monkeypatch.setattr(path_length, "calculate_ppl", calculate)
    path_length.perceptual_path_length(lambda z: z, 4, 4, device="cuda:1")

    def features(*given, **_):
        assert True in given and entered == [torch.device("cuda:1")]
        return {"32": torch.zeros(4, 32)}

    class Extractor:
        def state_dict(self):
            return {"weight": SimpleNamespace(device=torch.device("cuda:1"))}

    monkeypatch.setattr(fidelity, "get_featuresdict_from_generative_model", features)
    monkeypatch.setattr(fidelity, "_Stream", lambda *_: SimpleNamespace(images=iter(())))
    fidelity.fake_features(Extractor(), [], 4)
    assert not entered
