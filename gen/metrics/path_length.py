"""StyleGAN's perceptual path length, through torch-fidelity with our LPIPS.

Source: Karras et al., "A Style-Based Generator Architecture for GANs", CVPR 2019. torch-fidelity's
own LPIPS takes 8-bit images of 64 px and needs a download; ours takes floats, as StyleGAN's does.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
import torch_fidelity
from torch import Tensor
from torch_fidelity.metric_ppl import calculate_ppl

from gen.devices import current, full_precision
from gen.interpolation import slerp
from gen.metrics.checks import check_images
from gen.networks.perceptual import LPIPS

EPSILON = 1e-4
TRIM = (1, 99)  # percentiles; distances outside are left out
LARGEST = 256  # px; larger images are averaged down to this size


class _Similarity(torch_fidelity.SampleSimilarityBase):
    """LPIPS(vgg) of images in [-1, 1], at most 256 px."""

    def __init__(self, name: str, **_):
        super().__init__(name)
        self.lpips = LPIPS("vgg")

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        for images in (x, y):
            check_images(images, "perceptual_path_length, generated images")
        if min(x.shape[2:]) > LARGEST:
            x, y = (F.interpolate(i, (LARGEST, LARGEST), mode="area") for i in (x, y))
        return self.lpips(x, y)


torch_fidelity.register_sample_similarity("gen_lpips_vgg", _Similarity)
torch_fidelity.register_interpolation("gen_slerp", slerp)  # its own steps are |z'| / |z| too long


class _Generator(torch_fidelity.GenerativeModelBase):
    """torch-fidelity's generator interface for a function."""

    z_type = "normal"
    z_size = num_classes = 0  # set below; torch-fidelity wants class attributes

    def __init__(
        self,
        generate: Callable[..., Tensor],
        latent_dim: int,
        classes: int,
        place: str | torch.device,
    ):
        super().__init__()
        self.generate, self.z_size, self.num_classes = generate, latent_dim, classes
        self.place = place  # where it runs; torch-fidelity itself is on the CPU beside MPS

    def forward(self, z: Tensor, *labels: Tensor) -> Tensor:
        images = self.generate(*(given.to(self.place) for given in (z, *labels)))
        if len(images) != len(z):
            raise ValueError(f"generate: expected {len(z)} images, got {len(images)}")
        return images.to(z.device)


def perceptual_path_length(
    generate: Callable[..., Tensor],
    latent_dim: int,
    count: int,
    classes: int = 0,
    seed: int = 2020,
    batch_size: int = 16,
    device: str | torch.device = "cpu",
) -> dict[str, float]:
    """PPL at the ends of paths in Z: change of the image for a small step of the latent.

    Mean of LPIPS(G(z), G(slerp(z, z', eps))) / eps^2, eps = 1e-4, z and z' ~ N(0, I), without the
    distances outside the 1st and the 99th percentile; lower is smoother. No crop; images above 256
    px are compared at 256 px. `smoothness` measures whole paths instead. In float32 the step is
    near rounding: values for two batch sizes agree to about 1e-3, not 1e-5.

    Args:
        generate: function z (N, L) -> images (N, 3, H, W) in [-1, 1]. With `classes` it also gets
            labels (N,) int64, equal at both ends of a step. A translator can use labels as indices
            of sources: `lambda z, i: decode(content[i], map_style(z, y[i])).clamp(-1, 1)`
        latent_dim: width L of a latent.
        count: number of paths; StyleGAN's protocol has 50,000.
        classes: number of classes; labels are uniform in 0 .. classes - 1; 0: no labels.
        seed: seed of latents and labels.
        batch_size: paths per batch; `generate` gets twice as many latents.
        device: device of the latents for `generate`: CPU, any CUDA device, or MPS.

    Returns:
        `ppl_eps1e-4_vgg_zend`.

    Raises:
        ValueError: no paths; images of wrong dtype, shape, count or range; NaN.
        WeightsError: the published LPIPS weights are missing.
    """
    if count < 1 or latent_dim < 1 or classes < 0 or batch_size < 1:
        raise ValueError(
            "perceptual_path_length: expected count, latent_dim and batch_size >= 1, classes >= 0,"
            f" got {count}, {latent_dim}, {batch_size}, {classes}"
        )
    with full_precision(device), current(device):  # the step is below the precision of TF32
        found = calculate_ppl(
            1,
            input1=_Generator(generate, latent_dim, classes, device),
            input1_model_num_samples=count,
            input1_model_num_classes=classes,
            ppl_epsilon=EPSILON,
            ppl_reduction="none",
            ppl_sample_similarity="gen_lpips_vgg",
            ppl_z_interp_mode="gen_slerp",
            ppl_discard_percentile_lower=None,  # its trimming fails with numpy 2.4
            ppl_discard_percentile_higher=None,
            rng_seed=seed,
            batch_size=batch_size,
            cuda=torch.device(device).type == "cuda",
            verbose=False,
        )
    distances = found[torch_fidelity.KEY_METRIC_PPL_RAW].astype(np.float64)
    low = np.percentile(distances, TRIM[0], method="lower")
    high = np.percentile(distances, TRIM[1], method="higher")
    kept = distances[(low <= distances) & (distances <= high)]
    return {"ppl_eps1e-4_vgg_zend": float(kept.mean())}
