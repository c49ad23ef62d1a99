"""Two-stage detectors: the published sizes, equality with torchvision, and where it differs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import project_masks_on_boxes
from torchvision.ops import MultiScaleRoIAlign

from pacavit.detectors import FasterRcnn, MaskRcnn, Target
from pacavit.detectors.parts import RegionPooler
from pacavit.detectors.published import ExactAnchors, _mask_targets, _MatcherFromLeast
from pacavit.errors import RecipeError
from pacavit.models import Pyramid, build_pyramid

CLASSES = 3
LIGHT: dict[str, Any] = {"channels": 32, "fc_channels": 48, "box_rois": 64, "proposals": (200, 100)}
LIGHT_MASKS: dict[str, Any] = LIGHT | {"mask_channels": 24, "mask_convs": 2}

# Parameters of Mask R-CNN with 80 classes, in the authors' layout and in torchvision's.
TOTALS = [
    ("pacavit_tiny", 31_974_896, 31_979_253),
    ("pacavit_small", 41_811_920, 41_816_277),
    ("pacavit_base", 66_606_672, 66_611_029),
    ("pacavit_small_p2cmlp_100_0", 42_411_484, 42_415_841),
    ("pacavit_convmixer_small_100", 40_849_280, 40_853_637),
    ("pacavit_small_p2cconv_100_blockwise", 43_966_160, 43_970_517),
]


@pytest.mark.parametrize(("name", "published", "torchvision"), TOTALS)
def test_parameters_are_those_of_the_paper(name: str, published: int, torchvision: int) -> None:
    with torch.device("meta"):
        backbone = build_pyramid(name)
        for variant, total in (("published", published), ("torchvision", torchvision)):
            network = MaskRcnn(backbone, 80, variant=variant)
            assert sum(parameter.numel() for parameter in network.parameters()) == total


class Levels(nn.Module):
    """The backbone of torchvision's detectors, made of ours."""

    def __init__(self, detector: FasterRcnn) -> None:
        super().__init__()
        self.detector, self.out_channels = [detector], LIGHT["channels"]

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        (detector,) = self.detector
        levels: dict[str, Tensor] = detector.neck(detector.backbone(images))
        return levels


def torchvisions(detector: MaskRcnn) -> MaskRCNN:
    """torchvision's own detector with the weights of ours; it leaves images as they are."""
    sizes = tuple((8 * stride,) for stride in detector.neck.strides)
    names = ["0", "1", "2"]
    model = MaskRCNN(
        Levels(detector),
        min_size=64,
        max_size=96,
        image_mean=[0.0] * 3,
        image_std=[1.0] * 3,
        rpn_anchor_generator=AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * len(sizes)),
        rpn_post_nms_top_n_train=200,
        rpn_post_nms_top_n_test=100,
        box_roi_pool=MultiScaleRoIAlign(names, 7, 2),
        box_head=TwoMLPHead(LIGHT["channels"] * 49, 48),
        box_predictor=type(detector.roi_heads.box_predictor)(48, CLASSES + 1),
        box_batch_size_per_image=64,
        mask_roi_pool=MultiScaleRoIAlign(names, 14, 2),
        mask_head=MaskRCNNHeads(LIGHT["channels"], (24, 24), 1),
        mask_predictor=MaskRCNNPredictor(24, 24, CLASSES + 1),
    )
    model.rpn.load_state_dict(detector.rpn.state_dict())
    model.roi_heads.load_state_dict(detector.roi_heads.state_dict())
    return model


def seed(*_: Any) -> None:
    torch.manual_seed(1)


def test_the_variant_torchvision_is_torchvisions_detector(
    backbone: Pyramid, images: Tensor, targets: list[Target]
) -> None:
    detector = MaskRcnn(backbone, CLASSES, variant="torchvision", **LIGHT_MASKS)
    theirs = torchvisions(detector)
    as_theirs = [
        {"boxes": target.boxes, "labels": target.labels + 1, "masks": target.masks}
        for target in targets
    ]
    detector.train()
    theirs.train()
    detector.backbone.eval()  # stochastic depth would differ
    for rpn in (detector.rpn, theirs.rpn):  # the same samples of anchors and regions
        rpn.register_forward_pre_hook(seed)
    ours = detector.losses(images, targets, [(64, 96)] * 2)
    expected = theirs(list(images), as_theirs)
    assert tuple(ours) == ("rpn_objectness", "rpn_boxes", "classes", "boxes", "masks")
    names = ("loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg", "loss_mask")
    for own, name in zip(ours.values(), names, strict=True):
        torch.testing.assert_close(own, expected[name])
    detector.eval()
    theirs.eval()
    with torch.no_grad():
        for found, wanted in zip(detector(images), theirs(list(images)), strict=True):
            assert len(found.labels) > 10
            torch.testing.assert_close(found.boxes, wanted["boxes"])
            torch.testing.assert_close(found.labels, wanted["labels"] - 1)
            torch.testing.assert_close(found.scores, wanted["scores"])


@pytest.mark.parametrize("strides", [(4, 8, 16, 32), (2, 4, 8), (8, 16)])
def test_regions_are_pooled_as_by_torchvision_with_its_settings(strides: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    levels = {str(stride): torch.randn(2, 5, 512 // stride, 640 // stride) for stride in strides}
    corners = torch.rand(40, 2) * 300
    boxes = torch.cat([corners, corners + torch.rand(40, 2).pow(3) * 210 + 1], 1)
    pooler = RegionPooler(7, strides, sampling_ratio=2, aligned=False)
    theirs = MultiScaleRoIAlign(list(levels), 7, 2)
    sizes = [(512, 640)] * 2
    expected = theirs(levels, [boxes[:25], boxes[25:]], sizes)
    torch.testing.assert_close(pooler(levels, [boxes[:25], boxes[25:]], sizes), expected)
    assert pooler(levels, [boxes[:0], boxes[:0]], sizes).shape == (0, 5, 7, 7)


def test_published_regions_have_their_pixels_centers_in_the_middle() -> None:
    columns = torch.arange(64.0).expand(1, 1, 64, 64)
    boxes = torch.tensor([[32.0, 8, 88, 64]])  # 14 cells of the level: two in each cell of 7
    pooled = RegionPooler(7, (4,), sampling_ratio=0, aligned=True)({"0": columns}, [boxes], [])
    # A cell of the level at column c has its center at c + 0.5.
    expected = 8 + 2 * (torch.arange(7) + 0.5) - 0.5
    torch.testing.assert_close(pooled[0, 0, 3], expected)


def test_levels_need_not_double_their_strides() -> None:
    pooler = RegionPooler(7, (4, 16), sampling_ratio=0, aligned=True)
    sides = torch.tensor([1.0, 56, 112, 223, 224, 2000])
    boxes = torch.stack([sides * 0, sides * 0, sides, sides], 1)
    assert pooler.level_of(boxes).tolist() == [0, 0, 0, 0, 1, 1]


@pytest.mark.parametrize("size", [(800, 800), (832, 800), (801, 1333)])
def test_published_anchors_are_exact_and_do_not_depend_on_padding(size: tuple[int, int]) -> None:
    strides, sizes = (4, 64), (32, 512)
    levels = [torch.zeros(1, 1, *(-(-side // stride) for side in size)) for stride in strides]
    (anchors,) = ExactAnchors(sizes, (0.5, 1.0, 2.0), strides)(
        ImageList(torch.zeros(1, 3, *size), [size]), levels
    )
    first, row = anchors[0], levels[0].shape[3] * 3
    half = 32 * 2**0.5 / 2, 32 / 2**0.5 / 2
    torch.testing.assert_close(first, torch.tensor([-half[0], -half[1], half[0], half[1]]))
    assert (anchors[row] - first).tolist() == [0, 4, 0, 4]
    coarse = anchors[-levels[1].numel() * 3 :]
    assert (coarse[3] - coarse[0]).tolist() == [64, 0, 64, 0]
    torch.testing.assert_close(
        (coarse[:, 2:] - coarse[:, :2]).prod(1), torch.full((len(coarse),), 512.0**2)
    )


def test_objects_claim_anchors_from_a_least_overlap_only() -> None:
    matcher = _MatcherFromLeast(0.7, 0.3, allow_low_quality_matches=True)
    overlaps = torch.tensor(
        [
            [0.80, 0.10, 0.60, 0.00, 0.0],  # the usual match
            [0.10, 0.25, 0.10, 0.00, 0.0],  # its best anchor overlaps it too little
            [0.10, 0.00, 0.55, 0.35, 0.0],  # claims an anchor that overlaps the first one more
            [0.00, 0.00, 0.00, 0.00, 0.0],
        ]
    )
    assert matcher(overlaps).tolist() == [0, -1, 2, -2, -1]


def test_published_losses_of_boxes_are_absolute_differences(backbone: Pyramid) -> None:
    rpn = FasterRcnn(backbone, CLASSES, **LIGHT).rpn
    labels = [torch.tensor([1.0, 0.0, -1.0]), torch.tensor([1.0, 0.0, 0.0])]
    targets, found = torch.zeros(6, 4), torch.full((6, 4), 9.0)
    found[0], found[3] = 0.05, -2.0
    objectness, boxes = rpn.compute_loss(torch.zeros(6, 1), found, labels, targets.split(3))
    assert objectness.item() == pytest.approx(0.6931, abs=1e-4)
    assert boxes.item() == pytest.approx((4 * 0.05 + 4 * 2) / 5)  # over five sampled anchors


def test_published_mask_targets_are_aligned_and_binary() -> None:
    masks = torch.zeros(2, 40, 40, dtype=torch.bool)
    masks[1, :, :17] = True
    boxes, objects = torch.tensor([[3.0, 3, 31, 31]]), torch.tensor([1])
    found = _mask_targets(masks, boxes, objects, 28)
    expected = (torch.arange(28) < 14).float().expand(1, 28, 28)
    torch.testing.assert_close(found, expected)
    assert (project_masks_on_boxes(masks, boxes, objects, 28) - expected).abs().max() == 0.5


def test_the_published_layout_has_background_last_and_without_boxes(backbone: Pyramid) -> None:
    predictor = FasterRcnn(backbone, CLASSES, **LIGHT).roi_heads.box_predictor
    with torch.no_grad():
        for layer in (predictor.cls_score, predictor.bbox_pred):
            layer.weight.zero_()
            layer.bias.copy_(torch.arange(len(layer.bias)))
    logits, boxes = predictor(torch.randn(1, 48))
    assert logits.tolist() == [[3, 0, 1, 2]]
    assert boxes.tolist() == [[0, 0, 0, 0, *range(12)]]


def test_proposals_in_training(backbone: Pyramid) -> None:
    assert MaskRcnn(backbone, 3).rpn._post_nms_top_n == {"training": 1000, "testing": 1000}
    theirs = MaskRcnn(backbone, 3, variant="torchvision")
    assert theirs.rpn._post_nms_top_n == {"training": 2000, "testing": 1000}


@pytest.mark.parametrize("variant", ["published", "torchvision"])
def test_boxes_beyond_512_pixels_are_exact_under_autocast(backbone: Pyramid, variant: str) -> None:
    detector = FasterRcnn(backbone, CLASSES, variant=variant, **LIGHT).eval()
    images = torch.randn(1, 3, 32, 1100)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        (found,) = detector(images)
        proposals, _ = detector.rpn(
            ImageList(images, [(32, 1100)]), detector.neck(detector.backbone(images))
        )
    for boxes in (found.boxes, proposals[0]):
        inner = boxes[:, ::2][(boxes[:, ::2] > 520) & (boxes[:, ::2] < 1099)]
        assert len(inner) > 10
        assert (inner % 4 != 0).float().mean() > 0.9


@pytest.mark.parametrize("variant", ["published", "torchvision"])
def test_results_without_proposals_are_empty(
    backbone: Pyramid, images: Tensor, variant: str
) -> None:
    detector = MaskRcnn(backbone, CLASSES, variant=variant, **LIGHT_MASKS).eval()
    detector.rpn.score_thresh = 2.0
    with torch.no_grad():
        for found in detector(images):
            assert found.boxes.shape == (0, 4)
            assert found.box_masks is not None
            assert found.box_masks.shape == (0, 28, 28)


def test_logits_of_a_box_are_those_of_the_region(backbone: Pyramid, images: Tensor) -> None:
    detector = FasterRcnn(backbone, CLASSES, **LIGHT).eval()
    boxes = torch.tensor([[8.0, 8, 40, 40], [30, 20, 92, 60]])
    with torch.no_grad():
        scores = detector.class_logits(detector.backbone(images), (64, 96), boxes)
        heads, levels = detector.roi_heads, detector.neck(detector.backbone(images))
        pooled = heads.box_roi_pool(levels, [boxes[:1], boxes[1:]], [])
        logits = heads.box_predictor.cls_score(heads.box_head(pooled))
    torch.testing.assert_close(scores, logits[:, :CLASSES])


def test_a_tiny_image_can_be_learned(
    backbone: Pyramid, images: Tensor, targets: list[Target]
) -> None:
    detector = MaskRcnn(backbone, CLASSES, **LIGHT_MASKS).train()
    optimizer = torch.optim.AdamW(detector.parameters(), 1e-3)
    totals = []
    for _ in range(4):
        torch.manual_seed(0)  # the same samples of anchors and regions
        total = sum(detector.losses(images, targets, [(64, 96)] * 2).values(), torch.zeros(()))
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(total.item())
    assert totals[2] < totals[0]
    assert totals[3] < totals[1]


def test_masks_are_needed(backbone: Pyramid, images: Tensor, targets: list[Target]) -> None:
    detector = MaskRcnn(backbone, CLASSES, **LIGHT_MASKS)
    without = [target._replace(masks=None) for target in targets]
    with pytest.raises(ValueError, match="learns from masks"):
        detector.losses(images, without, [(64, 96)] * 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "mine"}, "'published' or 'torchvision', not 'mine'"),
        ({"channels": 0}, "channels of a detector must be 1 or more"),
        (
            {"anchor_sizes": (8, 16)},
            "must be 4 numbers, one for each level of strides 4, 8, 16, 32",
        ),
        ({"anchor_sizes": (8, 16, 32, 0)}, "anchor_sizes of a detector must be above 0"),
        ({"anchor_ratios": ()}, "anchor_ratios of a detector must be above 0"),
        ({"proposals": (100,)}, "two numbers, for training and for evaluation, not 1"),
        ({"box_rois": 0}, "box_rois of a detector must be above 0"),
        ({"score_threshold": 1.5}, "score_threshold of a detector must be from 0 to 1"),
        ({"mask_convs": 0}, "mask_convs of a detector must be above 0"),
    ],
)
def test_wrong_options_are_refused(
    backbone: Pyramid, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        MaskRcnn(backbone, CLASSES, **options)


@pytest.mark.parametrize(
    ("stages", "strides"), [((0,), (4, 8)), ((0, 2), (4, 16, 32)), ((1, 2), (8, 16, 32))]
)
def test_any_maps_make_a_pyramid(
    stages: Sequence[int], strides: tuple[int, ...], images: Tensor
) -> None:
    backbone = build_pyramid("pacavit_nano", stages, stem_stride=4)
    detector = FasterRcnn(backbone, CLASSES, **LIGHT).eval()
    assert detector.neck.strides == strides
    odd = images[:, :, :57, :91]
    levels = detector.neck(backbone(odd))
    sides = [tuple(level.shape[2:]) for level in levels.values()]
    assert sides == [(-(-57 // stride), -(-91 // stride)) for stride in strides]
    with torch.no_grad():
        assert len(detector(odd)) == 2


def test_a_light_head_is_only_options(backbone: Pyramid) -> None:
    light = MaskRcnn(
        backbone,
        1,
        channels=64,
        anchor_sizes=(8, 16, 32, 64),
        box_rois=128,
        fc_channels=256,
        mask_channels=64,
        max_detections=300,
    )
    assert light.roi_heads.fg_bg_sampler.batch_size_per_image == 128
    assert light.roi_heads.detections_per_img == 300
    assert sum(p.numel() for p in light.roi_heads.parameters()) < 1_200_000
