"""What is asked of editors of codes, on stand-ins whose images show their codes."""

import pytest
import torch

from gen import edits

NAMES = ["bear", "cat", "dog", "spots"]


class Editor(torch.nn.Module):
    """Its code is its attributes, its image shows them; an edit also adds its noise."""

    attribute_names, noise_dim, latent_dim, img_size = NAMES, 4, 4, 4

    def __init__(self):
        super().__init__()
        self.seen = torch.nn.Parameter(torch.zeros(1))  # says on which device

    def map_latents(self, z, psi=None):
        species = torch.nn.functional.one_hot(z[:, :3].argmax(1), 3).float()
        return torch.cat([species, (z[:, 3:] > 0).float()], 1)[:, None]  # (N, 1, 4)

    def synthesize(self, ws):
        return ws[:, :, None, :].expand(-1, 3, 4, -1)  # (N, 3, 4, 4)

    def edit(self, ws, d, z):
        return d[:, None] + 1e-3 * z[:, None]


class Judge:
    attribute_names, img_size = NAMES, 4

    def classify(self, x):
        return x[:, 0, 0] - 0.5


def test_labels_are_what_the_judge_sees_and_known_are_all_that_occur():
    method = Editor()
    ws = torch.tensor([[[0.0, 1, 0, 1]], [[1.0, 0, 0, 0]]])
    assert torch.equal(edits.labels(method, Judge(), ws), ws[:, 0])
    seen = edits.known(method, Judge())
    assert len(seen) == 6  # three species, with and without spots
    assert (seen[:, :3].sum(1) == 1).all()


def test_another_judge_is_refused():
    judge = Judge()
    judge.attribute_names = NAMES[:3]
    with pytest.raises(ValueError, match="classifier: expected the attributes .* got"):
        edits.labels(Editor(), judge, torch.zeros(1, 1, 4))


def test_a_request_changes_as_little_else_as_occurs():
    seen = edits.known(Editor(), Judge())
    y = torch.tensor([0.0, 0, 1, 1])  # a dog with spots
    assert edits.parse("cat", NAMES) == {1: True}
    assert edits.wanted(y, edits.parse("cat", NAMES), seen).tolist() == [0, 1, 0, 1]
    assert edits.wanted(y, edits.parse("cat,-spots", NAMES), seen).tolist() == [0, 1, 0, 0]
    assert edits.wanted(y, {}, seen).tolist() == y.tolist()
    assert edits.wanted(y, edits.parse("-dog", NAMES), seen)[3] == 1


def test_requests_that_cannot_be_met_are_refused():
    seen = edits.known(Editor(), Judge())
    with pytest.raises(ValueError, match="combinations of attributes.*ask for less"):
        edits.wanted(seen[0], edits.parse("cat,dog", NAMES), seen)
    with pytest.raises(ValueError, match="among bear, cat, dog, spots, got 'cow'"):
        edits.parse("cow", NAMES)


def test_edits_have_a_row_for_each_request_and_seed():
    method = Editor()
    ws = method.map_latents(torch.randn(5, 4, generator=torch.Generator().manual_seed(0)))
    d = torch.stack([ws[:, 0], 1 - ws[:, 0]])  # (2, 5, 4)
    codes = edits.edits(method, ws, d, range(3))
    assert codes.shape == (2, 3, 5, 1, 4)
    assert torch.equal(codes[:, :1], edits.edits(method, ws, d, range(1)))
    assert (codes[0] - codes[1]).sub(d[0, :, None] - d[1, :, None]).abs().max() < 1e-5
    assert len(codes[0, :, 0, 0].unique(dim=0)) == 3  # other noise, another code


def test_a_walk_passes_through_its_keys():
    method = Editor()
    keys = [torch.zeros(2, 1, 4), torch.ones(2, 1, 4), torch.full((2, 1, 4), 0.5)]
    first, second = edits.walk(method, keys, 5)
    assert first.shape == (2, 5, 3, 4, 4)
    assert torch.equal(first[:, -1], second[:, 0])
    assert torch.equal(first[0, :, 0, 0, 0], torch.linspace(0, 1, 5))
