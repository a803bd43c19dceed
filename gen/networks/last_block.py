"""A ViT whose last block hands on what its attention gathered, and nothing past it.

Source: Peruzzo et al., "Spatial Entropy as an Inductive Bias for Vision Transformers", Machine
Learning 2024: an option of the authors' code ("nosn"), independent of the loss.
"""

from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn


class LastBlock(Block):
    """A block without the skip around its attention, stochastic depth there, and second norm:

        u = LS1(MSA(LN1(x)))        instead of  x + DP(LS1(MSA(LN1(x))))
        z = u + DP(LS2(MLP(u)))     instead of  u + DP(LS2(MLP(LN2(u))))

    LS is LayerScale, where the model has it, DP stochastic depth.

    Args:
        block: The block whose parts are taken over, with their weights; not to be used again.
    """

    def __init__(self, block: Block):
        nn.Module.__init__(self)  # not Block's: nothing new is made
        for name, part in block.named_children():
            if name not in ("norm2", "drop_path1"):
                self.add_module(name, part)
        self.train(block.training)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        u = self.ls1(self.attn(self.norm1(x)))
        return u + self.drop_path2(self.ls2(self.mlp(u)))


def rewire_last_block(model: nn.Module) -> None:
    """Gives a ViT or DeiT of timm this last block; `blocks.<last>.norm2.*` leaves its state dict.

    Call it before loading weights of a rewired model, and before building the optimizer.

    Raises:
        ValueError: a model that is not such a ViT, or one whose last block is of another kind.
    """
    last = model.blocks[-1] if isinstance(model, VisionTransformer) else None
    if type(last) is not Block:
        got = type(model).__name__ + (f" with {type(last).__name__}" if last is not None else "")
        raise ValueError(
            "rewire_last_block: expected a VisionTransformer of timm (ViT, DeiT) with plain "
            f"blocks, got {got}; take such a model, or leave the option out"
        )
    model.blocks[-1] = LastBlock(last)
