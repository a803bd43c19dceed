"""Classifiers of timm by name, for a given image size, and a rewired last block.

Source of the last block: Peruzzo et al., "Spatial Entropy as an Inductive Bias for Vision
Transformers", Machine Learning 2024: an option of the authors' code ("nosn"), independent of the
loss.
"""

import timm
import torch
from timm.models import clean_state_dict, is_model_in_modules
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from gen.pickles.files import read_state

RESIZABLE = {"vision_transformer", "deit", "eva"}  # modules of timm: other sizes also later


def timm_classifier(
    name: str,
    num_classes: int,
    img_size: int,
    patch_size: int = 0,
    drop_path: float = 0.0,
    seed: int = 777,
    pretrained: str | None = None,
    registers: int = 0,
) -> nn.Module:
    """Builds the network of timm with this name, in training mode.

    Args:
        name: name of a model, without a hub or a path.
        num_classes: number of logits S: (N, 3, H, H) -> (N, S).
        img_size: side H of the images, px.
        patch_size: side of a patch, px; 0 is the model's own.
        drop_path: largest rate of stochastic depth.
        seed: seed of the first weights.
        pretrained: source of weights: None for random weights; "" for timm's download; else the
            path of a file.
        registers: number of register tokens; 0 keeps the model's own.

    Raises:
        ValueError: no model of timm, or one that does not take these options.
        Exception: of any kind, from weights that are missing, damaged or of another model.
    """
    if not timm.is_model(name):  # else timm would look for it on a hub or on the disk
        names = "timm.list_models('*vit*') has names"
        raise ValueError(f"model_name: expected a model of timm, got {name!r}; {names}")
    options = {"num_classes": num_classes, "drop_path_rate": drop_path}
    config = timm.get_pretrained_cfg(name)
    if is_model_in_modules(name, RESIZABLE):
        options |= {"img_size": img_size, "dynamic_img_size": True}
    elif config and config.fixed_input_size:  # fixed when built, that is
        options |= {"img_size": img_size}
    if patch_size:
        options |= {"patch_size": patch_size}
    if registers:
        options |= {"reg_tokens": registers}
    if pretrained is not None:
        options |= {"pretrained": True}
    if pretrained:
        state = read_state(pretrained, f"weights of timm's {name}")  # timm has another reader
        options |= {"pretrained_cfg_overlay": {"state_dict": clean_state_dict(state)}}
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = timm.create_model(name, **options)
        with torch.no_grad():  # a size that does not fit shows now, not in the first batch
            net.eval()(torch.zeros(1, 3, img_size, img_size)).view(1, num_classes)
    except (AssertionError, RuntimeError, TypeError) as error:
        if pretrained is not None:
            raise
        raise ValueError(
            f"expected img_size, patch_size, drop_path and registers as {name} takes them, got "
            f"{img_size}, {patch_size}, {drop_path} and {registers}: {type(error).__name__}: "
            f"{error!s:.200}"
        ) from error
    return net.train()


class LastBlock(Block):
    """A block without skip connection and stochastic depth at its attention, and without LN2:

        u = LS1(MSA(LN1(x)))        instead of  x + DP(LS1(MSA(LN1(x))))
        z = u + DP(LS2(MLP(u)))     instead of  u + DP(LS2(MLP(LN2(u))))

    LS is LayerScale, if the model has it; DP is stochastic depth.

    Args:
        block: block whose parts are taken over, with their weights; not to be used again.
    """

    def __init__(self, block: Block):
        nn.Module.__init__(self)  # not Block's, which would build new layers
        for name, part in block.named_children():
            if name not in ("norm2", "drop_path1"):
                self.add_module(name, part)
        self.train(block.training)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        u = self.ls1(self.attn(self.norm1(x)))
        return u + self.drop_path2(self.ls2(self.mlp(u)))


def rewire_last_block(model: nn.Module) -> None:
    """Replaces the last block of timm's ViT or DeiT; its state dict loses `blocks.<last>.norm2.*`.

    Call it before loading weights of a rewired model, and before building the optimizer.

    Raises:
        ValueError: the model is no ViT or DeiT, or its last block is of another kind.
    """
    last = model.blocks[-1] if isinstance(model, VisionTransformer) else None
    if type(last) is not Block:
        got = type(model).__name__ + (f" with {type(last).__name__}" if last is not None else "")
        raise ValueError(
            "rewire_last_block: expected a VisionTransformer of timm (ViT, DeiT) with plain "
            f"blocks, got {got}; take such a model, or leave the option out"
        )
    model.blocks[-1] = LastBlock(last)
