"""Grad-CAM and occlusion against Captum, on the same networks."""

from __future__ import annotations

from types import SimpleNamespace

import captum.attr
import pytest
import torch
from questions import ask, classifier, pictures
from torch import nn

from vitrail.core.errors import SettingError
from vitrail.explainers.explanation_page import every
from vitrail.explainers.gradcam import GradCam, NoMapError
from vitrail.explainers.masked_images import on_pixels
from vitrail.explainers.occlusion import Occlusion, OcclusionSettings, cell_grid, mean_colour
from vitrail.models.swin import SwinConfig
from vitrail.models.timm_wrapper import TimmConfig


@pytest.mark.parametrize("name", ["resnet10t", "convnext_atto"])
def test_gradcam(name):
    subject = ask(TimmConfig(name, 64))
    images = torch.randn(2, 3, 64, 64)
    net = subject.network.encoder.net
    layer = net.layer4 if name == "resnet10t" else net.stages[-1]
    found = GradCam()(subject, images)
    theirs = captum.attr.LayerGradCam(classifier(subject), layer).attribute(images.requires_grad_(), target=0)
    expected = theirs[:, 0].clamp(min=0).detach()
    assert found.shape == (2, 2, 2)
    if name == "resnet10t":  # convnext puts a norm behind its last stage, which is part of the map
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert found.any()


def test_gradcam_of_a_pyramid():
    """The tokens that the mean is taken of are the map; Captum sees them behind the last norm."""
    subject = ask(SwinConfig((48, 72), 2, 5, width=14, depths=(2, 2), heads=(1, 2), window=3))
    images = pictures(subject).requires_grad_()
    layer = subject.network.encoder.norm
    activation = captum.attr.LayerActivation(classifier(subject), layer).attribute(images)
    gradient = captum.attr.LayerGradientXActivation(
        classifier(subject), layer, multiply_by_inputs=False
    ).attribute(images, target=0)
    expected = (activation * gradient.mean(1, keepdim=True)).sum(-1).clamp(min=0).view(2, 12, 18)
    torch.testing.assert_close(GradCam()(subject, images), expected.detach(), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("window", [1, 2, 3])
def test_occlusion(window):
    subject = ask("vit_digits")
    image = torch.randn(1, 3, 32, 32)
    found = Occlusion(OcclusionSettings(window))(subject, image)
    assert cell_grid(subject.spec, image) == (8, 8)
    theirs = captum.attr.Occlusion(classifier(subject)).attribute(
        image,
        sliding_window_shapes=(3, 4 * window, 4 * window),
        strides=(3, 4, 4),
        baselines=mean_colour(image[0])[None],
        target=0,
    )
    # Captum's squares stop at the border; ours hang over it, so only what lies further in is the same.
    inner = (slice(window - 1, 9 - window),) * 2
    expected = theirs[0, 0, ::4, ::4].float()
    torch.testing.assert_close(found[0][inner], expected[inner], rtol=1e-4, atol=1e-6)


def test_cells_that_do_not_divide_the_picture():
    cells = torch.arange(6.0).view(1, 2, 3)
    pixels = on_pixels(cells, 5, 7)
    assert pixels.shape == (1, 5, 7)
    assert [int((pixels == value).sum()) for value in range(6)] == [4, 6, 4, 6, 9, 6]


def test_gradcam_says_when_a_head_reads_no_map():
    subject = ask("vit_digits")
    with pytest.raises(SettingError, match="relevance"):
        GradCam()(subject, pictures(subject))


def test_a_method_that_finds_nothing_is_left_out_with_a_line():
    def explain(method: str, of: str | None) -> str:
        if method == "gradcam":
            raise NoMapError("Grad-CAM finds nothing.")
        return method

    network = ask("vit_digits", pool="mean").network
    found, refused = every(SimpleNamespace(predictor=SimpleNamespace(network=network), explain=explain))
    assert (found, refused) == (["rollout", "relevance", "occlusion"], ["Grad-CAM finds nothing."])


def test_occlusion_needs_no_torch_inside():
    """Anything that answers will do: here a brightness meter."""

    class Meter(nn.Module):
        def __init__(self, network):
            super().__init__()
            self.encoder, self.head = network.encoder, network.head

        @property
        def spec(self):
            return self.encoder.spec

        def forward(self, inputs):
            images = inputs["images"]
            means = [images[:, :, 8:12, 16:20].mean((1, 2, 3)), images.mean((1, 2, 3))]
            return {"logits": torch.stack(means, 1)}

    subject = ask("vit_digits", labels="ab")
    image = torch.zeros(1, 3, 32, 32)
    image[..., 8:12, 16:20] = 1
    twin = type(subject)(Meter(subject.network), subject.task, subject.prediction, "meter")
    found = Occlusion(OcclusionSettings(1))(twin, image)[0]
    assert divmod(int(found.argmax()), 8) == (2, 4)
    assert int((found > 0.01).sum()) == 1
