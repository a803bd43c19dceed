# %% [markdown]
# # Where a transformer looks
#
# The attention of a small Vision Transformer that was trained with spatial entropy, see
# [`SpatialEntropy`](../methods/spatial_entropy.md), and the loss alone on a network of timm.

# %%
import timm
import torch
from PIL import Image, ImageDraw

import gen
from gen import viz
from gen.losses.spatial_entropy import spatial_entropy
from gen.metrics.attention import attention
from gen.networks.attention_tap import AttentionTap
from gen.viz.attention import heat

model = gen.load("spatial_entropy_emoji64")
image = Image.new("RGB", (256, 256), "white")
draw = ImageDraw.Draw(image)
draw.ellipse((16, 60, 176, 220), fill="#fc3")
for box in ((60, 110, 76, 140), (116, 110, 132, 140), (72, 164, 120, 196)):
    draw.ellipse(box, fill="#642")
pixels = torch.tensor([*image.resize((64, 64), Image.Resampling.BOX).tobytes()])
x = (pixels.view(64, 64, 3) / 127.5 - 1).permute(2, 0, 1)[None]  # (1, 3, 64, 64)
chance, y = model.classify(x).softmax(1).max(1)
print(f"{model.domains[y]}, {float(chance):.2f}")

# %% [markdown]
# It is right for about half of the emoji that it was not trained on, so do not rely on the class.
# One map for each head of the last block: shares of the class token's attention. The entropy is 0
# if all that is above the mean of a map is in one piece.

# %%
maps = model.attention(x)  # (1, 3, 8, 8), similarities
shares = attention(maps)[0]  # (3, 8, 8)
pictures = [viz.enlarge(x[0]), *(heat(x[0], share) for share in shares)]
viz.save_image(viz.grid([pictures], headers=["image", "head 1", "head 2", "head 3"]), "heads.png")
entropies = spatial_entropy(maps, per_map=True)[0]  # (3,)
print("spatial entropy of each head:", [round(abs(h), 2) for h in entropies.tolist()])

# %% [markdown]
# The loss is small for one blob and large for scattered spots of the same mass. It works with any
# ViT of timm; `AttentionTap` reads the similarities while fused attention stays on.

# %%
blob, spots = torch.zeros(2, 1, 1, 8, 8)
blob[..., 2:4, 2:4] = 1
spots[..., ::4, ::4] = 1
for name, maps in (("blob", blob), ("spots", spots)):
    print(name, round(spatial_entropy(maps).item(), 3))

# %%
vit = timm.create_model("vit_tiny_patch16_224")  # random weights
tap = AttentionTap(vit)
logits = vit(torch.randn(1, 3, 224, 224))
loss = spatial_entropy(tap.pop())
loss.backward()
print("of an untrained network:", round(loss.item(), 2))
print("gradients reach its keys:", bool(vit.blocks[-1].attn.qkv.weight.grad.any()))
