"""Files that break naive converters, each with what should become of it."""

import io
import os
import pathlib
import struct
import tarfile
import zipfile
import zlib

import numpy as np
from PIL import Image, ImageCms

from support.dataset_samples import add_file, pictures, png

GOOD = pictures(1, 24, 24)[0]


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def smooth(height: int, width: int) -> np.ndarray:
    """A gradient, which JPEG keeps well, uint8 [H, W, 3]."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 // width, y * 255 // height, (x + y) * 255 // (height + width)], -1).astype(np.uint8)


def png_chunks(width: int, height: int, data: bytes, depth: int = 8, colour: int = 2) -> bytes:
    """A PNG from its parts, right or wrong."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">L", len(content)) + kind + content + struct.pack(">L", zlib.crc32(kind + content))

    header = struct.pack(">2L5B", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def skipped_files() -> dict[str, tuple[bytes, str]]:
    """name -> (content, part of the reason)"""
    image = Image.fromarray(GOOD)
    photo = Image.fromarray(smooth(64, 64))
    frames = [Image.fromarray(pictures(1, 24, 24, seed=i)[0]) for i in range(3)]
    jpeg, gif = encoded(photo, "jpeg"), encoded(photo, "gif")
    return {
        "truncated.png": (png(GOOD)[:-300], "damaged"),
        "truncated.jpg": (jpeg[: len(jpeg) // 2], "damaged"),
        "truncated.webp": (encoded(photo, "webp")[:-50], "damaged"),
        "header-only.png": (png(GOOD)[:20], "damaged"),
        "empty.png": (b"", "empty file"),
        "text.png": (b"this is text\n" * 50, "not an image"),
        "page.jpg": (b"<html>404</html>", "not an image"),
        "animated.gif": (encoded(frames[0], "gif", save_all=True, append_images=frames[1:]), "animated"),
        "animated.webp": (encoded(frames[0], "webp", save_all=True, append_images=frames[1:]), "animated"),
        "animated.png": (encoded(frames[0], "png", save_all=True, append_images=frames[1:]), "animated"),
        "pages.tiff": (encoded(frames[0], "tiff", save_all=True, append_images=frames[1:]), "several pages"),
        "dot.png": (encoded(image.resize((1, 1)), "png"), "too small"),
        "line.png": (encoded(image.resize((20000, 1)), "png"), "too small"),
        "bomb.png": (png_chunks(50_000, 50_000, zlib.compress(bytes(1000))), "too large"),
        "bigger-bomb.png": (png_chunks(2**31 - 1, 2**31 - 1, b""), "too large"),
        "bomb.gif": (gif[:6] + b"\xff\xff\xff\xff" + gif[10:], "too large"),
        "float.tiff": (encoded(Image.fromarray(np.ones((24, 24), np.float32)), "tiff"), "no known range"),
        "script.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 24 24\nshowpage\n", "not an image"),
        "vector.svg": (b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>", "not an image"),
    }


def wanted_files() -> dict[str, tuple[bytes, np.ndarray]]:
    """name -> (content, pixels [24, 24, 3] it should give); the tolerance is for JPEG and colour profiles."""
    rgb = Image.fromarray(smooth(24, 24))
    pixels = np.asarray(rgb)
    grey = np.asarray(rgb.convert("L"))
    palette = rgb.quantize(64)
    see_through = palette.copy()
    see_through.info["transparency"] = 5
    on_white = np.where((np.asarray(palette) == 5)[..., None], 255, np.asarray(palette.convert("RGB")))
    alpha = np.dstack([pixels, np.full((24, 24), 51, np.uint8)])
    exif = Image.Exif()
    exif[0x0112] = 6  # taken with the camera turned: show it rotated by 90 degrees clockwise
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    deep = grey.astype(np.uint16) * 257
    lie = encoded(rgb, "png")
    return {
        "jpeg-called.png": (encoded(rgb, "jpeg", quality=98, subsampling=0), pixels),
        "png-called.jpg": (lie, pixels),
        "no-suffix": (lie, pixels),
        "16-bit-grey.png": (encoded(Image.fromarray(deep), "png"), np.dstack([grey] * 3)),
        "grey.png": (png(grey), np.dstack([grey] * 3)),
        "one-bit.png": (encoded(rgb.convert("1"), "png"), np.asarray(rgb.convert("1").convert("RGB"))),
        "palette.png": (encoded(palette, "png"), np.asarray(palette.convert("RGB"))),
        "palette-transparent.png": (encoded(see_through, "png", transparency=5), on_white),
        "rgba.png": (png(alpha), np.round(pixels * 0.2 + 255 * 0.8)),
        "grey-alpha.png": (
            encoded(Image.merge("LA", (Image.fromarray(grey), Image.new("L", (24, 24), 51))), "png"),
            np.dstack([np.round(grey * 0.2 + 255 * 0.8)] * 3),
        ),
        "cmyk.jpg": (encoded(rgb.convert("CMYK"), "jpeg", quality=98), pixels),
        "rotated.jpg": (encoded(rgb, "jpeg", quality=98, subsampling=0, exif=exif), np.rot90(pixels, -1)),
        "rotated.png": (encoded(rgb, "png", exif=exif), np.rot90(pixels, -1)),
        "srgb-profile.png": (encoded(rgb, "png", icc_profile=profile), pixels),
        "broken-profile.png": (encoded(rgb, "png", icc_profile=b"nonsense" * 30), pixels),
        "still.gif": (encoded(palette, "gif"), np.asarray(palette.convert("RGB"))),
        "still.webp": (encoded(rgb, "webp", lossless=True), pixels),
        "画像 \N{PILE OF POO} ünï\u202ecode.png": (lie, pixels),
        "n" * 250 + ".png": (lie, pixels),
    }


def traversal_zip(path: pathlib.Path) -> list[str]:
    """Writes a zip of one good picture and some that would leave the folder; -> the bad names."""
    bad = ["../escape.png", "a/../../escape2.png", "/tmp/absolute.png", "C:\\windows.png", "..\\back.png"]
    with zipfile.ZipFile(path, "w") as z:
        for name in ["good.png", *bad]:
            z.writestr(name, png(GOOD))
    return bad


def duplicate_zip(path: pathlib.Path) -> None:
    """Two members of one name."""
    with zipfile.ZipFile(path, "w") as z:
        for _ in range(2):
            z.writestr("same.png", png(GOOD))


def bomb_zip(path: pathlib.Path) -> None:
    """A good picture and 600 MB of zeros."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as z:
        z.writestr("good.png", png(GOOD))
        with z.open("zeros.png", "w") as f:
            for _ in range(600):
                f.write(bytes(1 << 20))


def overlapping_zip(path: pathlib.Path) -> None:
    """Many directory entries for one member, the trick of the smallest zip bombs."""
    with zipfile.ZipFile(path, "w") as z:
        z.writestr("good.png", png(GOOD))
        info = z.infolist()[0]
        for i in range(50):
            twin = zipfile.ZipInfo(f"twin{i}.png")
            for name in ("CRC", "compress_size", "file_size", "header_offset", "compress_type"):
                setattr(twin, name, getattr(info, name))
            z.filelist.append(twin)
        z._didModify = True


def lying_zip(path: pathlib.Path) -> None:
    """A member that unpacks to more than the directory says."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr("good.png", png(GOOD))
        z.writestr("liar.png", bytes(1 << 20))
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02")
    struct.pack_into("<L", data, at + 24, 100)
    path.write_bytes(data)


def nasty_tar(path: pathlib.Path) -> dict[str, str]:
    """Writes a tar of one good picture and others; -> name of each bad one: part of the reason."""
    with tarfile.open(path, "w") as tar:
        add_file(tar, "good.png", png(GOOD))
        for name in ("../escape.png", "/tmp/absolute.png"):
            add_file(tar, name, png(GOOD))
        for name, kind in (("link.png", tarfile.SYMTYPE), ("hard.png", tarfile.LNKTYPE), ("pipe.png", tarfile.FIFOTYPE),
                           ("device.png", tarfile.CHRTYPE)):  # fmt: skip
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
        add_file(tar, "same.png", png(GOOD))
        add_file(tar, "same.png", png(GOOD))
    return {
        "../escape.png": "unsafe path", "/tmp/absolute.png": "unsafe path", "link.png": "a link", "hard.png": "a link",
        "pipe.png": "a link", "device.png": "a link", "same.png": "second picture",
    }  # fmt: skip


def nasty_folder(path: pathlib.Path) -> None:
    """One good picture among loops of links, dead links, a pipe and clutter."""
    path.mkdir()
    (path / "good.png").write_bytes(png(GOOD))
    (path / "loop").symlink_to(path)
    (path / "self.png").symlink_to(path / "self.png")
    (path / "dead.png").symlink_to(path / "nowhere.png")
    os.mkfifo(path / "pipe.png")
    for clutter in ("__MACOSX/._good.png", ".hidden.png", ".git/x.png", "Thumbs.db"):
        (path / clutter).parent.mkdir(exist_ok=True)
        (path / clutter).write_bytes(b"clutter")
