"""Adaptive discriminator augmentation: the pipeline that reals and fakes pass before the discriminator sees them.

Source: Karras et al., "Training Generative Adversarial Networks with Limited Data", 2020, section 3 and appendix B.
"""

import dataclasses
import functools
import math

import torch
import torch.nn.functional as F
from torch import nn

from dnnlib.config import Share, Weight
from dnnlib.errors import UserError
from training.augment import geometry


@dataclasses.dataclass
class AugmentConfig:
    """How often (multipliers of p, 0 = never drawn) and how strongly each transform is applied."""

    # Blit: pixels move, none is interpolated.
    xflip: Weight = 0  # mirror left-right
    rotate90: Weight = 0  # quarter turns
    xint: Weight = 0  # shift by whole pixels
    xint_max: Share = 0.125  # largest shift, as a part of the side
    # Geometry.
    scale: Weight = 0  # isotropic scaling
    rotate: Weight = 0  # rotation by any angle
    aniso: Weight = 0  # stretch of one axis against the other
    xfrac: Weight = 0  # shift by fractions of pixels
    scale_std: Weight = 0.2  # in octaves
    rotate_max: Weight = 1  # 1 = half a turn either way
    aniso_std: Weight = 0.2  # in octaves
    xfrac_std: Weight = 0.125  # as a part of the side
    # Colour.
    brightness: Weight = 0
    contrast: Weight = 0
    lumaflip: Weight = 0  # mirror the luma axis, keep the hue
    hue: Weight = 0
    saturation: Weight = 0
    brightness_std: Weight = 0.2  # in units of the image, whose range is [-1, 1]
    contrast_std: Weight = 0.5  # in octaves
    hue_max: Weight = 1  # 1 = half a turn of the colour circle either way
    saturation_std: Weight = 1  # in octaves
    # Filter: gain or loss in four octave bands.
    imgfilter: Weight = 0
    imgfilter_bands: list[Weight] = dataclasses.field(default_factory=lambda: [1.0, 1.0, 1.0, 1.0])  # of imgfilter
    imgfilter_std: Weight = 1  # in octaves
    # Corruptions.
    noise: Weight = 0  # additive Gaussian noise
    cutout: Weight = 0  # a rectangle set to 0
    noise_std: Weight = 0.1  # in units of the image
    cutout_size: Share = 0.5  # side of the rectangle, as a part of the image's

    def check_channels(self, channels: int) -> None:
        """UserError where colour transforms are asked for on images that have no colours."""
        if channels not in (1, 3) and any(getattr(self, transform) for transform in _GROUPS["c"]):
            raise UserError(
                f"colour augmentation is for 1 or 3 channels, these images have {channels}: choose --augpipe=bg, "
                "--aug=diffaug or --aug=noaug"
            )


_GROUPS = {
    "b": ("xflip", "rotate90", "xint"),
    "g": ("scale", "rotate", "aniso", "xfrac"),
    "c": ("brightness", "contrast", "lumaflip", "hue", "saturation"),
    "f": ("imgfilter",),
    "n": ("noise",),
    "C": ("cutout",),
}


def _preset(letters: str) -> AugmentConfig:
    cfg = AugmentConfig()
    for letter in letters:
        for transform in _GROUPS[letter]:
            setattr(cfg, transform, 1.0)
    return cfg


PRESETS: dict[str, AugmentConfig] = {
    "blit": _preset("b"),
    "geom": _preset("g"),
    "color": _preset("c"),
    "filter": _preset("f"),
    "noise": _preset("n"),
    "cutout": _preset("C"),
    "bg": _preset("bg"),
    "bgc": _preset("bgc"),
    "bgcf": _preset("bgcf"),
    "bgcfn": _preset("bgcfn"),
    "bgcfnc": _preset("bgcfnC"),
}  # copy one (dataclasses.replace) before changing it


class AugmentPipe(nn.Module):
    """Augments images; buffer `p` [] is the probability that the trainer adapts.

    Args:
        cfg: Which transforms, how often, how strongly.
    """

    p: torch.Tensor

    def __init__(self, cfg: AugmentConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.register_buffer("p", torch.ones([]))

    def forward(self, images: torch.Tensor, percentile: float | None = None) -> torch.Tensor:
        """Images [N, C, H, W] in [-1, 1] -> the same shape and range (some transforms leave it); twice differentiable.

        Each image draws its own transforms from torch's default generator of the images' device. The draws do not
        depend on p, nor on what they lead to. With `percentile` in (0, 1) every transform is applied, with the
        parameter that this percentile stands for: deterministic (but for the noise's pixels), for tests.

        Raises:
            UserError: an image too small for the filters, or colour transforms of neither 1 nor 3 channels.
        """
        return self.draw(images, percentile).apply(images)

    def draw(self, like: torch.Tensor, percentile: float | None = None) -> "PipeDraw":
        """All choices for images of the shape, type and device of `like` [N, C, H, W], drawn in a fixed order."""
        draws: Draws = RandomDraws(like, self.p) if percentile is None else PercentileDraws(like, percentile)
        maps = draw_maps(self.cfg, draws, *like.shape[2:])
        colors = draw_colors(self.cfg, draws)
        gains = draw_gains(self.cfg, draws)
        sigma = draw_sigma(self.cfg, draws)
        box = draw_box(self.cfg, draws)
        noise = None
        if sigma is not None:
            pixels = torch.randn(like.shape, dtype=like.dtype, device=like.device)
            noise = sigma[:, None, None, None] * pixels
        return PipeDraw((like.shape[2], like.shape[3]), maps, colors, gains, noise, box)


@dataclasses.dataclass
class PipeDraw:
    """The choices for N images; None for transforms that the config leaves out."""

    size: tuple[int, int]  # (height, width) that maps and noise are for
    maps: torch.Tensor | None  # [N, 3, 3], in pixels
    colors: torch.Tensor | None  # [N, 4, 4]
    gains: torch.Tensor | None  # [N, 4]
    noise: torch.Tensor | None  # [N, C, H, W]
    box: torch.Tensor | None  # [N, 3]

    def apply(self, images: torch.Tensor) -> torch.Tensor:
        """Images [N, C, H, W] in [-1, 1] -> the same shape. UserError as `AugmentPipe.forward`.

        The levels of one picture may have other sizes than it was drawn for: they move in proportion.
        """
        size = (images.shape[2], images.shape[3])
        if size != self.size:
            return self._resized(size).apply(images)
        if self.maps is not None:
            images = geometry.warp(images, self.maps)
        if self.colors is not None:
            images = recolor(images, self.colors)
        if self.gains is not None:
            images = filter_bands(images, self.gains)
        if self.noise is not None:
            images = images + self.noise
        return images if self.box is None else cut_out(images, self.box)

    def moved(self, images: torch.Tensor) -> torch.Tensor:
        """Blit and geometry alone."""
        return dataclasses.replace(self, colors=None, gains=None, noise=None, box=None).apply(images)

    def _resized(self, size: tuple[int, int]) -> "PipeDraw":
        maps, noise = self.maps, self.noise
        if maps is not None:
            y, x = (maps.new_full([len(maps)], new / old) for new, old in zip(size, self.size))
            maps = geometry.scale(x, y) @ maps @ geometry.scale(1 / x, 1 / y)
        if noise is not None:
            noise = F.interpolate(noise, size, mode="nearest")
        return dataclasses.replace(self, size=size, maps=maps, noise=noise)


class RandomDraws:
    """Per-image parameters, each transform applied with probability `p` times its multiplier."""

    def __init__(self, images: torch.Tensor, p: torch.Tensor) -> None:
        self.like = images.detach()[:, 0, 0, 0]  # [N]: batch size, dtype and device of all draws
        self.p = p.to(self.like)

    def uniform(self) -> torch.Tensor:
        """[N] from U(0, 1)."""
        return torch.rand_like(self.like)

    def normal(self) -> torch.Tensor:
        """[N] from N(0, 1)."""
        return torch.randn_like(self.like)

    def half_normal(self) -> torch.Tensor:
        """[N] from |N(0, 1)|."""
        return self.normal().abs()

    def sometimes(self, multiplier: float, value: torch.Tensor, neutral: float) -> torch.Tensor:
        """`value` [N] with probability p * multiplier, else `neutral`."""
        return torch.where(self.uniform() < self.p * multiplier, value, neutral)

    def rotations(self, multiplier: float, largest: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Two angles [N], such that with probability p * multiplier at least one of them is not 0."""
        each = 1 - (1 - (self.p * multiplier).clamp(max=1)).sqrt()
        angles = [torch.where(self.uniform() < each, (2 * self.uniform() - 1) * largest, 0) for _ in range(2)]
        return angles[0], angles[1]


class PercentileDraws:
    """All transforms, all images, one percentile q. Normal draws become erfinv(2q - 1), as in the original."""

    def __init__(self, images: torch.Tensor, q: float) -> None:
        self.q = images.detach().new_full([len(images)], q)

    def uniform(self) -> torch.Tensor:
        """[N] filled with q."""
        return self.q

    def normal(self) -> torch.Tensor:
        """[N] filled with erfinv(2q - 1)."""
        return torch.erfinv(2 * self.q - 1)

    def half_normal(self) -> torch.Tensor:
        """[N] filled with erfinv(q)."""
        return torch.erfinv(self.q)

    def sometimes(self, multiplier: float, value: torch.Tensor, neutral: float) -> torch.Tensor:
        """`value` itself."""
        return value

    def rotations(self, multiplier: float, largest: float) -> tuple[torch.Tensor, torch.Tensor]:
        """(2q - 1) * largest, and 0: one rotation only."""
        return (2 * self.q - 1) * largest, torch.zeros_like(self.q)


Draws = RandomDraws | PercentileDraws


def draw_maps(cfg: AugmentConfig, draws: Draws, height: int, width: int) -> torch.Tensor | None:
    """Geometric maps [N, 3, 3], output to input pixels; None if the config has no such transform."""
    factors = _blit_factors(cfg, draws, height, width) + _geometric_factors(cfg, draws, height, width)
    return functools.reduce(torch.matmul, factors) if factors else None


def _blit_factors(cfg: AugmentConfig, draws: Draws, height: int, width: int) -> list[torch.Tensor]:
    factors = []
    if cfg.xflip > 0:
        flip = draws.sometimes(cfg.xflip, (2 * draws.uniform()).floor(), 0)
        factors.append(geometry.scale(1 - 2 * flip, torch.ones_like(flip)))
    if cfg.rotate90 > 0:
        turns = draws.sometimes(cfg.rotate90, (4 * draws.uniform()).floor(), 0)
        factors.append(geometry.rotate(math.pi / 2 * turns))
    if cfg.xint > 0:
        shifts = [(2 * draws.uniform() - 1) * cfg.xint_max * side for side in (width, height)]
        moved = draws.sometimes(cfg.xint, torch.ones_like(shifts[0]), 0)
        factors.append(geometry.translate(-(moved * shifts[0]).round(), -(moved * shifts[1]).round()))
    return factors


def _geometric_factors(cfg: AugmentConfig, draws: Draws, height: int, width: int) -> list[torch.Tensor]:
    factors = []
    before = after = None
    if cfg.scale > 0:
        size = draws.sometimes(cfg.scale, 2 ** (cfg.scale_std * draws.normal()), 1)
        factors.append(geometry.scale(1 / size, 1 / size))
    if cfg.rotate > 0:
        before, after = draws.rotations(cfg.rotate, math.pi * cfg.rotate_max)
        factors.append(geometry.rotate(before))
    if cfg.aniso > 0:
        stretch = draws.sometimes(cfg.aniso, 2 ** (cfg.aniso_std * draws.normal()), 1)
        factors.append(geometry.scale(1 / stretch, stretch))
    if after is not None:
        factors.append(geometry.rotate(after))
    if cfg.xfrac > 0:
        shifts = [cfg.xfrac_std * draws.normal() * side for side in (width, height)]
        moved = draws.sometimes(cfg.xfrac, torch.ones_like(shifts[0]), 0)
        factors.append(geometry.translate(-moved * shifts[0], -moved * shifts[1]))
    return factors


def draw_colors(cfg: AugmentConfig, draws: Draws) -> torch.Tensor | None:
    """Colour maps [N, 4, 4] on (r, g, b, 1); None if the config has no such transform."""
    factors = []  # in the order of application, each multiplied from the left
    if cfg.brightness > 0:
        b = draws.sometimes(cfg.brightness, cfg.brightness_std * draws.normal(), 0)
        factors.append(geometry.matrix([[1, 0, 0, b], [0, 1, 0, b], [0, 0, 1, b], [0, 0, 0, 1]], like=b))
    if cfg.contrast > 0:
        c = draws.sometimes(cfg.contrast, 2 ** (cfg.contrast_std * draws.normal()), 1)
        factors.append(geometry.matrix([[c, 0, 0, 0], [0, c, 0, 0], [0, 0, c, 0], [0, 0, 0, 1]], like=c))
    if cfg.lumaflip > 0:
        flip = draws.sometimes(cfg.lumaflip, (2 * draws.uniform()).floor(), 0)
        factors.append(_about_luma(along=1 - 2 * flip, across=torch.ones_like(flip)))
    if cfg.hue > 0:
        angle = draws.sometimes(cfg.hue, (2 * draws.uniform() - 1) * math.pi * cfg.hue_max, 0)
        factors.append(_about_luma(torch.ones_like(angle), angle.cos(), turn=angle.sin()))
    if cfg.saturation > 0:
        factor = draws.sometimes(cfg.saturation, 2 ** (cfg.saturation_std * draws.normal()), 1)
        factors.append(_about_luma(along=torch.ones_like(factor), across=factor))
    return functools.reduce(lambda done, new: new @ done, factors) if factors else None


def _about_luma(along: torch.Tensor, across: torch.Tensor, turn: torch.Tensor | None = None) -> torch.Tensor:
    """[N, 4, 4] that scales the luma axis v = (1, 1, 1)/sqrt(3) by `along` and the plane across it by `across`.

    `turn` adds that multiple of the cross product v x colour (Rodrigues' formula: across = cos, turn = sin).
    """
    same = (along + 2 * across) / 3
    other = (along - across) / 3
    cross = torch.zeros_like(same) if turn is None else turn / math.sqrt(3)
    up, down = other + cross, other - cross
    return geometry.matrix([[same, down, up, 0], [up, same, down, 0], [down, up, same, 0], [0, 0, 0, 1]], like=same)


def recolor(images: torch.Tensor, colors: torch.Tensor) -> torch.Tensor:
    """Applies colour maps [N, 4, 4] to images [N, 3, H, W]; grey images [N, 1, H, W] take the mean of the rows."""
    channels = images.shape[1]
    if channels not in (1, 3):
        raise UserError(f"colour augmentations need grey or RGB images, these have {channels} channels")
    linear, offset = colors[:, :3, :3], colors[:, :3, 3:]
    if channels == 1:
        linear, offset = linear.sum(dim=2, keepdim=True).mean(dim=1, keepdim=True), offset.mean(dim=1, keepdim=True)
    return torch.baddbmm(offset, linear, images.flatten(2)).unflatten(2, images.shape[2:])


def draw_gains(cfg: AugmentConfig, draws: Draws) -> torch.Tensor | None:
    """Gains [N, 4] of the frequency bands, lowest first; None if the config has no filter."""
    if cfg.imgfilter == 0:
        return None
    total: torch.Tensor | None = None
    power = torch.tensor([10, 1, 1, 1], dtype=torch.float64) / 13  # expected power of natural images (1/f)
    for band, multiplier in enumerate(cfg.imgfilter_bands):
        gain = draws.sometimes(cfg.imgfilter * multiplier, 2 ** (cfg.imgfilter_std * draws.normal()), 1)
        gains = torch.stack([gain if i == band else torch.ones_like(gain) for i in range(4)], dim=1)
        gains = gains / (gains.square() * power.to(gains)).sum(dim=1, keepdim=True).sqrt()
        total = gains if total is None else total * gains
    return total


def filter_bands(images: torch.Tensor, gains: torch.Tensor) -> torch.Tensor:
    """Amplifies the frequency bands of images [N, C, H, W] by gains [N, 4], along x and y, borders reflected."""
    n, channels, height, width = images.shape
    kernels = gains @ filter_bank().to(gains)
    reach = kernels.shape[1] // 2
    if min(height, width) <= reach:
        raise UserError(f"the filter augmentation needs images of more than {reach} pixels a side; leave it out")
    weight = kernels.repeat_interleave(channels, dim=0)[:, None, None]  # [N C, 1, 1, taps]
    flat = F.pad(images, [reach] * 4, mode="reflect").flatten(0, 1)[None]
    flat = F.conv2d(flat, weight, groups=n * channels)
    flat = F.conv2d(flat, weight.transpose(2, 3), groups=n * channels)
    return flat.unflatten(1, (n, channels))[0]


@functools.cache
def filter_bank() -> torch.Tensor:
    """[4, 43] float64: one band-pass filter a row, lowest band first, that sum to the identity.

    Built from the wavelet sym2 by repeated half-band splitting.
    """
    wavelet = torch.tensor([-0.129409522551, 0.224143868042, 0.836516303737, 0.482962913145], dtype=torch.float64)
    signs = torch.tensor([1, -1, 1, -1], dtype=torch.float64)
    low = _convolve(wavelet[None], wavelet.flip(0))[0] / 2
    high = _convolve((wavelet * signs)[None], (wavelet * signs).flip(0))[0] / 2
    bank = torch.tensor([[1.0], [0], [0], [0]], dtype=torch.float64)
    for band in (1, 2, 3):
        stretched = torch.zeros(4, 2 * bank.shape[1] - 1, dtype=torch.float64)
        stretched[:, ::2] = bank
        bank = _convolve(stretched, low)
        start = (bank.shape[1] - len(high)) // 2
        bank[band, start : start + len(high)] += high
    return bank


def _convolve(rows: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """Full convolution of each row [R, L] with kernel [K] -> [R, L + K - 1]."""
    return F.conv1d(rows[:, None], kernel.flip(0)[None, None], padding=len(kernel) - 1)[:, 0]


def draw_sigma(cfg: AugmentConfig, draws: Draws) -> torch.Tensor | None:
    """Standard deviation [N] of the noise; None if the config has no noise."""
    if cfg.noise == 0:
        return None
    return draws.sometimes(cfg.noise, cfg.noise_std * draws.half_normal(), 0)


def draw_box(cfg: AugmentConfig, draws: Draws) -> torch.Tensor | None:
    """Cutout boxes [N, 3] = (centre x, centre y, side) as parts of the image's sides; None without cutout."""
    if cfg.cutout == 0:
        return None
    x, y = draws.uniform(), draws.uniform()
    return torch.stack([x, y, draws.sometimes(cfg.cutout, torch.full_like(x, cfg.cutout_size), 0)], dim=1)


def cut_out(images: torch.Tensor, box: torch.Tensor) -> torch.Tensor:
    """Sets to 0 what lies inside the boxes [N, 3] of `draw_box`."""
    outside = []
    for axis, side in ((0, images.shape[3]), (1, images.shape[2])):
        position = (torch.arange(side, device=box.device, dtype=box.dtype) + 0.5) / side
        outside.append((position - box[:, axis, None]).abs() >= box[:, 2, None] / 2)
    return images * (outside[0][:, None, None, :] | outside[1][:, None, :, None])
