# %% [markdown]
# # Edit
#
# Attributes of heads, each edit in several ways, by `StyleFunction`, see [its
# page](../methods/style_function.md).

# %%
import torch

import gen
from gen import viz
from gen.inference import editing, generation

editor = gen.load("style_function_heads64")  # with its generator
judge = gen.load("attribute_classifier_heads64")
names = editor.attribute_names
ws = editor.map_latents(generation.latents(editor, range(4)))  # (4, L, 128)
labels = editing.labels(editor, judge, ws)  # (4, 6)
for row in labels.tolist():
    print([name for name, has in zip(names, row, strict=True) if has])

# %% [markdown]
# A request names what should change. `wanted` finds attributes that go together: a dog that is to
# be a cat is no dog any more.

# %%
requests = ["cat", "dog", "dark_fur"]
seen = editing.known(editor, judge, count=200)
d = torch.stack(
    [
        torch.stack([editing.wanted(y, editing.parse(text, names), seen) for y in labels])
        for text in requests
    ]
)  # (3, 4, 6)
codes = editing.edits(editor, ws, d, seeds=[0, 1])  # (3, 2, 4, L, 128)
images = [editor.synthesize(one).clamp(-1, 1) for one in (ws, *codes.flatten(0, 1))]
headers = [("image", 1), *((text, 2) for text in requests)]
viz.save_image(viz.grid([*zip(*images, strict=True)], headers=headers, lead=(0, 1)), "edits.png")

# %% [markdown]
# Did it work? The judge is the classifier that labelled the training images, so it is no
# independent one.

# %%
for text, of, edited in zip(requests, d, codes, strict=True):
    right = (editing.labels(editor, judge, edited[0]) == of).float()
    print(f"{text}: {right.mean():.2f} of all attributes are as wanted")

# %% [markdown]
# From an image to its edit and back:

# %%
[leg] = editing.walk(editor, [ws[:1], codes[0, 0, :1]], frames=12)
viz.save_gif(viz.palindrome([viz.enlarge(frame) for frame in leg[0]]), "edit.gif")
