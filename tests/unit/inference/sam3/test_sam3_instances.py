"""What becomes of the model's raw outputs, on outputs that are written down."""

from typing import Any

import numpy as np
import pytest


Merge = Any

SURE = 0.9


@pytest.fixture
def merge(libraries: None) -> Merge:
    """Return what merges instances ``(score, box, mask)`` at 40 by 20 pixels, above 0.5."""
    import torch  # noqa: PLC0415 - not installed everywhere

    from s3edge_inference.sam3.instances import merge  # noqa: PLC0415 - likewise
    from s3edge_inference.sam3.model import RawAnswer  # noqa: PLC0415 - likewise

    def merged(*queries: tuple[float, list[float], Any]) -> Any:
        scores, boxes, masks = zip(*queries, strict=True)
        answer = RawAnswer(
            torch.tensor(scores),
            torch.tensor(boxes),
            torch.from_numpy(np.stack(masks).astype(np.float32)),
        )
        return merge(answer, 40, 20, 0.5)

    return merged


def square(top: int, left: int, bottom: int, right: int) -> Any:
    """Return a sure mask of 10 by 20 cells, half the stored image's resolution."""
    mask = np.zeros((10, 20))
    mask[top:bottom, left:right] = 1
    return mask


WHOLE = [0.0, 0.0, 1.0, 1.0]


def test_a_mask_is_the_union_of_its_instances(merge: Merge) -> None:
    """Apart or overlapping, each instance's pixels are in, twice as many a side as cells."""
    mask, instances = merge(
        (0.6, WHOLE, square(1, 1, 4, 4)),
        (0.7, WHOLE, square(2, 3, 6, 8)),
        (0.8, WHOLE, square(7, 15, 10, 20)),
    )
    expected = np.zeros((20, 40), np.bool_)
    for top, left, bottom, right in ((1, 1, 4, 4), (2, 3, 6, 8), (7, 15, 10, 20)):
        expected[2 * top : 2 * bottom, 2 * left : 2 * right] = True
    # Between cells the interpolation rounds corners off, by one pixel each.
    assert (mask != expected).sum() <= 12
    assert not (mask & ~expected).any()
    assert [instance.score for instance in instances] == [0.8, 0.7, 0.6]


def test_who_scores_too_little_leaves_no_trace(merge: Merge) -> None:
    """Neither in the mask nor in the list; the threshold itself is too little."""
    mask, instances = merge(
        (0.5, WHOLE, square(0, 0, 10, 20)),
        (0.51, WHOLE, square(0, 0, 2, 2)),
        (0.1, WHOLE, square(0, 0, 10, 20)),
    )
    assert len(instances) == 1
    assert mask.sum() <= 16


def test_who_has_no_pixel_is_no_instance(merge: Merge) -> None:
    """A query that is sure of nothing does not make the mask's confidence."""
    mask, instances = merge((SURE, WHOLE, square(0, 0, 0, 0)), (0.6, WHOLE, square(0, 0, 5, 5)))
    assert [instance.score for instance in instances] == [0.6]
    assert mask.any()
    mask, instances = merge((SURE, WHOLE, np.full((10, 20), 0.5)))
    assert instances == []
    assert (mask.shape, mask.any()) == ((20, 40), False)


def test_boxes_are_in_pixels_within_the_image(merge: Merge) -> None:
    """Left, top, right, bottom, to a tenth of a pixel; what the model has outside is cut off."""
    inner, outer = [0.1, 0.25, 0.5, 0.7512], [-0.2, -0.1, 1.3, 1.01]
    _, instances = merge((0.8123456, inner, square(0, 0, 9, 9)), (SURE, outer, square(0, 0, 9, 9)))
    assert [instance.as_json() for instance in instances] == [
        {"box": [0.0, 0.0, 40.0, 20.0], "score": 0.9},
        {"box": [4.0, 5.0, 20.0, 15.0], "score": 0.8123},
    ]
