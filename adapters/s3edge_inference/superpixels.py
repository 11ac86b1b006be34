"""
The method of ``CpuPredictor``.

Once for an image: a working copy of bounded size, superpixels (SLIC; Achanta et al., "SLIC
superpixels compared to state-of-the-art superpixel methods", PAMI 2012). For each prompt: a score
for each pixel of the working copy, a threshold, a clean-up, and edges drawn anew on the stored
image's own pixels.
"""

from collections.abc import Sequence

import attrs
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from scipy import ndimage
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import dijkstra
from skimage.filters import threshold_otsu
from skimage.segmentation import slic

from s3edge_inference.colours import NamedColour, OkLab, colours_in, oklab
from s3edge_inference.encoding import Mask, mask_png
from s3edge_inference.predictors import Segmentation


Scores = NDArray[np.float32]


@attrs.frozen
class Method:
    """
    What the method can be told; see ``CpuPredictor``.

    Attributes:
        working_pixels: Pixels of the reduced copy.
        superpixels: How many regions it is split into, about.
        speck_fraction: Specks and holes smaller than this fraction of the image go, 0 to 1.
    """

    working_pixels: int
    superpixels: int
    speck_fraction: float


def segmented(image: Image.Image, prompts: Sequence[str], method: Method) -> list[Segmentation]:
    """Segment one image by each of the prompts, in their order."""
    scene = _look_at(image, method.working_pixels, method.superpixels)
    foreground: Segmentation | None = None
    segmentations = []
    for prompt in prompts:
        if colours := colours_in(prompt):
            labels = tuple(colour.name for colour in colours)
            scores = _colour_scores(scene, colours)
            segmentations.append(_cut_out(scene, scores, scores > _FITTING, labels, method))
            continue
        if foreground is None:
            scores, threshold = _foreground_scores(scene)
            coarse = _redrawn(scene.lab, scores > threshold)
            foreground = _cut_out(scene, scores, coarse, ("foreground",), method)
        segmentations.append(foreground)
    return segmentations


def _cut_out(
    scene: "_Scene", scores: Scores, coarse: Mask, labels: tuple[str, ...], method: Method
) -> Segmentation:
    coarse = _without_specks(coarse, method.speck_fraction)
    mask = _without_specks(_on_stored_pixels(scene, coarse), method.speck_fraction)
    return Segmentation(mask_png(mask), labels, _separation(scores, coarse) if mask.any() else 0.0)


@attrs.frozen(eq=False)
class _Scene:
    """
    An image, analysed as far as no prompt is needed.

    Attributes:
        stored: The image as decoded, sRGB, ``(height, width, 3)``.
        lab: The working copy, ``(rows, columns, 3)``.
        superpixel_of: Which superpixel a working pixel is in, ``(rows, columns)``, from 0 without
            gaps.
        means: Mean OKLab of each superpixel, ``(n, 3)``.
    """

    stored: NDArray[np.uint8]
    lab: OkLab
    superpixel_of: NDArray[np.intp]
    means: OkLab

    def mean_of(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Average working pixels, ``(rows, columns)``, over each superpixel, ``(n,)``."""
        return _region_means(self.superpixel_of, values)


# Analysis that no prompt is needed for

_SLIC_COMPACTNESS = 10.0  # Perceptual units that a superpixel's width weighs as much as.
_SMALLEST_SUPERPIXEL = 16  # Working pixels.
_SLIC_SMALLEST_SIDE = 8  # Working pixels.
_PERCEPTUAL = np.array([100, 200, 200], np.float32)
"""Scales OKLab to about CIELAB's numbers, chroma doubled as in CSS Color 4's deltaEOK2."""


def _look_at(image: Image.Image, working_pixels: int, superpixels: int) -> _Scene:
    # The median takes noise and JPEG ringing off without mixing colours across edges.
    working = _reduced(image, working_pixels).filter(ImageFilter.MedianFilter(3))
    lab = oklab(np.asarray(working))
    superpixel_of = _superpixels(lab, superpixels)
    means = np.stack([_region_means(superpixel_of, lab[..., i]) for i in range(3)], axis=-1)
    return _Scene(np.asarray(image), lab, superpixel_of, means)


def _reduced(image: Image.Image, working_pixels: int) -> Image.Image:
    width, height = image.size
    if width * height <= working_pixels:
        return image
    # A strip's short side cannot shrink below 1, so its long side must shrink more.
    scale = (working_pixels / (width * height)) ** 0.5
    rows = max(1, round(height * scale))
    columns = max(1, min(round(width * scale), working_pixels // rows))
    rows = min(rows, max(1, working_pixels // columns))
    return image.resize((columns, rows), Image.Resampling.BOX, reducing_gap=3.0)


def _superpixels(lab: OkLab, wanted: int) -> NDArray[np.intp]:
    rows, columns = lab.shape[:2]
    wanted = min(wanted, max(1, rows * columns // _SMALLEST_SUPERPIXEL))
    if min(rows, columns) < _SLIC_SMALLEST_SIDE:
        # SLIC needs room in both directions; strips and dots are cut into even pieces.
        longer = max(rows, columns)
        along = np.arange(longer) * min(wanted, longer) // longer
        cut = along[np.newaxis, :] if columns >= rows else along[:, np.newaxis]
        return np.ascontiguousarray(np.broadcast_to(cut, (rows, columns)))
    perceptual = lab * _PERCEPTUAL
    regions = slic(
        perceptual,
        n_segments=wanted,
        # slic() stretches its input to 0..1, a plain image's noise too; this undoes it.
        compactness=_SLIC_COMPACTNESS / max(float(np.ptp(perceptual)), 1e-3),
        max_num_iter=5,
        convert2lab=False,
        start_label=0,
    )
    return np.asarray(np.unique(regions, return_inverse=True)[1].reshape(rows, columns), np.intp)


def _region_means(region_of: NDArray[np.intp], values: NDArray[np.float32]) -> NDArray[np.float32]:
    sums = np.bincount(region_of.ravel(), weights=values.ravel())
    return np.asarray(sums / np.bincount(region_of.ravel()), np.float32)


# Scores by colour word

_PIXEL_SHARE = 0.6  # Of a pixel's own fit in its score; its superpixel's has the rest.
_FITTING = 0.5  # Where a colour's range has its border.


def _colour_scores(scene: _Scene, colours: Sequence[NamedColour]) -> Scores:
    """Rate the working pixels by the best fitting of the colours, 0 to 1."""
    best = np.zeros(scene.lab.shape[:2], np.float32)
    for colour in colours:
        pixels = ndimage.uniform_filter(colour.membership(scene.lab), 3, mode="nearest")
        # A region is judged by its mean, which noise leaves alone, and by its pixels' own fit,
        # which keeps two colours in one region from being taken for the one between them.
        regions = (colour.membership(scene.means) + scene.mean_of(pixels)) / 2
        scores = _PIXEL_SHARE * pixels + (1 - _PIXEL_SHARE) * regions[scene.superpixel_of]
        np.maximum(best, scores, out=best)
    return best


# Scores by standing out from the border

_SAME_SURFACE = 7.0  # Colour steps below it, in perceptual units, do not end a surface.
_NEARBY = 0.25  # As a fraction of the image's longer side.
_LITTLE = 0.6  # Contrast below this fraction of the mean is like the background's own.
_BACKGROUND_WEIGHT = 5.0  # Against 1 for the foreground; the source's value.
_LEAST_CONTRAST = 4.0  # Perceptual units between foreground and rest: less is noise.
_FEWEST_REGIONS = 3
_TINY = 1e-6


def _foreground_scores(scene: _Scene) -> tuple[Scores, float]:
    """
    Rate the working pixels by how much their superpixel stands out; return Otsu's threshold too.

    What is joined to much of the image's border over small colour steps is background; the rest is
    foreground by its contrast to it; neighbours of like colour agree.

    Source: Zhu, Liang, Wei and Sun, "Saliency optimization from robust background detection",
    CVPR 2014.
    """
    nothing = np.zeros(scene.lab.shape[:2], np.float32), 0.5
    colours = scene.means * _PERCEPTUAL
    count = len(colours)
    if count < _FEWEST_REGIONS:
        return nothing
    difference = np.linalg.norm(colours[:, np.newaxis] - colours, axis=-1)
    pairs = _neighbours(scene.superpixel_of)
    border = _on_border(scene.superpixel_of)

    background = _background_weights(difference, pairs, border)
    contrast = (difference * _proximity(scene.superpixel_of)) @ background
    if contrast.max() <= 0:
        return nothing
    contrast /= contrast.max()
    # What looks like the background is background, though no way leads to it from the border: the
    # hole of a ring.
    likeness = np.clip(1 - contrast / (_LITTLE * contrast.mean()), 0, 1)
    background = np.maximum(background, likeness)
    contrast[contrast < contrast.mean()] = 0

    affinity = np.zeros((count, count))
    alike = np.exp(-(difference[pairs] ** 2) / (2 * _SAME_SURFACE**2)) + 0.1
    affinity[pairs] = alike
    affinity[pairs[::-1]] = alike
    laplacian = np.diag(affinity.sum(axis=1)) - affinity
    system = laplacian + np.diag(_BACKGROUND_WEIGHT * background + contrast + _TINY)
    saliency = np.linalg.solve(system, contrast)
    if np.ptp(saliency) < _TINY:
        return nothing
    saliency = (saliency - saliency.min()) / np.ptp(saliency)

    scores = saliency.astype(np.float32)[scene.superpixel_of]
    threshold = _otsu(scores)
    chosen = saliency > threshold
    apart = np.linalg.norm(colours[chosen].mean(axis=0) - colours[~chosen].mean(axis=0))
    if apart < _LEAST_CONTRAST:
        # Otsu splits a plain surface too.
        return nothing
    return scores, threshold


def _otsu(scores: Scores) -> float:
    return float(threshold_otsu(scores))  # type: ignore[no-untyped-call]  # scikit-image's own


def _background_weights(
    difference: NDArray[np.float32],
    pairs: tuple[NDArray[np.intp], NDArray[np.intp]],
    border: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Return 0 to 1 for each superpixel: how firmly its surface is joined to the border."""
    count = len(difference)
    # Steps as small as every region's smallest are noise or a gradient.
    steps = np.full(count, np.inf)
    np.minimum.at(steps, pairs[0], difference[pairs])
    np.minimum.at(steps, pairs[1], difference[pairs])
    smallest = steps[np.isfinite(steps)].mean()

    # The border's own regions are joined to one another: the background goes on outside the image.
    along = np.nonzero(border)[0]
    first, second = (along[i] for i in np.triu_indices(len(along), 1))
    first, second = np.concatenate([pairs[0], first]), np.concatenate([pairs[1], second])
    # An explicit zero would be no edge at all.
    lengths = np.maximum(difference[first, second] - smallest, _TINY)
    _, once = np.unique(np.stack([first, second]), axis=1, return_index=True)
    graph = coo_matrix((lengths[once], (first[once], second[once])), (count, count)).tocsr()
    distance = dijkstra(graph, directed=False, limit=3 * _SAME_SURFACE)

    on_surface = np.exp(-(distance**2) / (2 * _SAME_SURFACE**2))
    connectivity = on_surface[:, border].sum(axis=1) / np.sqrt(on_surface.sum(axis=1))
    return np.asarray(1 - np.exp(-(connectivity**2) / 2), np.float64)


def _neighbours(
    region_of: NDArray[np.intp],
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the pairs of regions that share a side, smaller index first."""
    across = np.stack([region_of[:, :-1].ravel(), region_of[:, 1:].ravel()])
    down = np.stack([region_of[:-1].ravel(), region_of[1:].ravel()])
    sides = np.sort(np.concatenate([across, down], axis=1), axis=0)
    sides = sides[:, sides[0] != sides[1]]
    count = int(region_of.max()) + 1
    first, second = np.divmod(np.unique(sides[0] * count + sides[1]), count)
    return first, second


def _on_border(region_of: NDArray[np.intp]) -> NDArray[np.bool_]:
    touching = np.zeros(int(region_of.max()) + 1, np.bool_)
    for side in (region_of[0], region_of[-1], region_of[:, 0], region_of[:, -1]):
        touching[side] = True
    return touching


def _proximity(region_of: NDArray[np.intp]) -> NDArray[np.float32]:
    """Return 1 for regions in one place, falling to 0 with distance, ``(n, n)``."""
    rows, columns = np.indices(region_of.shape, np.float32) / max(region_of.shape)
    centres = np.stack([_region_means(region_of, rows), _region_means(region_of, columns)], axis=-1)
    apart = np.linalg.norm(centres[:, np.newaxis] - centres, axis=-1)
    return np.asarray(np.exp(-(apart**2) / (2 * _NEARBY**2)), np.float32)


# From scores to a mask


def _without_specks(mask: Mask, speck_fraction: float) -> Mask:
    """Drop small islands, then close small holes."""
    least_pixels = speck_fraction * mask.size
    kept = mask & ~_small_regions(mask, least_pixels)
    return np.asarray(kept | _small_regions(~kept, least_pixels), np.bool_)


def _small_regions(mask: Mask, least_pixels: float) -> Mask:
    regions, _ = ndimage.label(mask, output=np.int32)
    sizes = np.bincount(regions.ravel())
    small = sizes < least_pixels
    small[0] = False
    return np.asarray(small[regions], np.bool_)


def _separation(scores: Scores, mask: Mask) -> float:
    """Return how far the picked pixels' scores lie above the others', 0 to 1."""
    if not mask.any():
        return 0.0
    rest = float(scores[~mask].mean()) if not mask.all() else 0.0
    return min(1.0, max(0.0, float(scores[mask].mean()) - rest))


_EDGE_SIGMA = 1.5  # Working pixels that an edge may move, about, for the stored pixels' sake.
_WIDE_EDGE_SIGMA = 6.0  # The same for edges of superpixels, which stray further.
_WHOLLY = 0.99
_LOCAL_SIGMA = 6.0  # Working pixels round about that tell what a side looks like.
_TOLD_APART = 3.0  # Perceptual units between two sides that colours can decide.
_STRIP_PIXELS = 2_000_000  # Stored pixels that are decided at once.


def _redrawn(lab: OkLab, coarse: Mask) -> Mask:
    """Move a mask's edges from those of superpixels to those of the working pixels."""
    near_edge, weights, offset = _edge_model(lab, coarse, _WIDE_EDGE_SIGMA)
    return np.where(near_edge, (weights * lab).sum(axis=-1) + offset > 0, coarse)


def _on_stored_pixels(scene: _Scene, coarse: Mask) -> Mask:
    """
    Bring a working mask to the stored size, with its edges decided by the stored pixels.

    The model of the edges is linear in a pixel's colour, so its parts are made on the working copy
    and interpolated.
    """
    height, width = scene.stored.shape[:2]
    rows, columns = coarse.shape
    row_of = (np.arange(height) + 0.5) * rows / height
    column_of = (np.arange(width) + 0.5) * columns / width
    near_edge, weights, offset = _edge_model(scene.lab, coarse, _EDGE_SIGMA)

    nearest_row, nearest_column = row_of.astype(np.intp)[:, np.newaxis], column_of.astype(np.intp)
    mask = coarse[nearest_row, nearest_column]
    strip_height = max(1, _STRIP_PIXELS // width)
    # In strips, so that memory stays bounded for the largest images.
    for top in range(0, height, strip_height):
        strip = slice(top, min(top + strip_height, height))
        y, x = np.nonzero(near_edge[nearest_row[strip], nearest_column])
        if not len(y):
            continue
        colours = oklab(scene.stored[strip][y, x])
        at = np.stack([row_of[strip][y] - 0.5, column_of[x] - 0.5])
        towards = ndimage.map_coordinates(offset, at, order=1, mode="nearest")
        for channel in range(3):
            weight = ndimage.map_coordinates(weights[..., channel], at, order=1, mode="nearest")
            towards += weight * colours[:, channel]
        mask[strip][y, x] = towards > 0
    return np.asarray(mask, np.bool_)


def _edge_model(
    lab: OkLab, coarse: Mask, sigma: float
) -> tuple[Mask, NDArray[np.float32], NDArray[np.float32]]:
    """
    Model which side of a mask's edge a pixel belongs to.

    The side whose colours it is closer to, where a side's colours are the mean of the working
    pixels on it round about; as in Lankton and Tannenbaum, "Localizing region-based active
    contours" (IEEE Transactions on Image Processing, 2008), but in one step.

    Returns:
        Where edges are within some ``sigma`` working pixels; and three weights for a pixel's OKLab
        and an offset, whose sum is positive inside.
    """
    inside = ndimage.gaussian_filter(coarse.astype(np.float32), sigma, mode="nearest")
    near_edge = np.asarray((inside > 1 - _WHOLLY) & (inside < _WHOLLY), np.bool_)
    weights = np.zeros_like(lab)
    offset = inside - 0.5
    if not near_edge.any():
        return near_edge, weights, offset

    picked = _local_mean(lab, coarse)
    other = _local_mean(lab, ~coarse)
    direction = (picked - other) * _PERCEPTUAL**2
    contrast = ((picked - other) * direction).sum(axis=-1)
    middle = (direction * (picked + other) / 2).sum(axis=-1)
    # Where both sides look alike, the working mask decides.
    told_apart = contrast > _TOLD_APART**2
    scale = np.where(told_apart, 1 / np.maximum(contrast, _TINY), 0).astype(np.float32)
    return near_edge, direction * scale[..., np.newaxis], offset - middle * scale


def _local_mean(lab: OkLab, where: Mask) -> OkLab:
    """Average the pixels of one side around every pixel; those on the very edge count little."""
    core = ndimage.binary_erosion(where, border_value=1)
    share = np.where(core, 1.0, np.where(where, 0.05, 0.0)).astype(np.float32)
    weight = ndimage.gaussian_filter(share, _LOCAL_SIGMA, mode="nearest") + _TINY
    mean = np.empty_like(lab)
    for channel in range(3):
        blurred = ndimage.gaussian_filter(lab[..., channel] * share, _LOCAL_SIGMA, mode="nearest")
        mean[..., channel] = blurred / weight
    return mean
