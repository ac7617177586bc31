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


Chunk = tuple[bytes, bytes]  # kind and content


def png_chunks(
    width: int,
    height: int,
    data: bytes,
    depth: int = 8,
    colour: int = 2,
    before: tuple[Chunk, ...] = (),
    behind: tuple[Chunk, ...] = (),
) -> bytes:
    """A PNG from its parts, right or wrong; `before` and `behind` are further chunks on either side of the pixels."""
    header = struct.pack(">2L5B", width, height, depth, colour, 0, 0, 0)
    out = b"\x89PNG\r\n\x1a\n"
    for kind, content in ((b"IHDR", header), *before, (b"IDAT", data), *behind, (b"IEND", b"")):
        out += struct.pack(">L", len(content)) + kind + content + struct.pack(">L", zlib.crc32(kind + content))
    return out


def packed_rows(samples: np.ndarray, depth: int) -> bytes:
    """PNG's pixel stream (no filter) of [H, W] or [H, W, C] samples of `depth` bits."""
    rows = samples.reshape(len(samples), -1)
    if depth == 16:
        return zlib.compress(b"".join(b"\0" + row.astype(">u2").tobytes() for row in rows))
    bits = np.unpackbits(rows.astype(np.uint8)[..., None], axis=-1)[..., 8 - depth :].reshape(len(rows), -1)
    return zlib.compress(b"".join(b"\0" + row.tobytes() for row in np.packbits(bits, axis=1)))


def deep_files() -> dict[str, tuple[bytes, np.ndarray]]:
    """name -> (content, pixels [24, 24, 3]): samples of more or fewer than 8 bits, some with a transparent value."""
    level = np.tile(np.arange(24), (24, 1))
    ramps = {bits: level * (2**bits - 1) // 23 for bits in (2, 4, 12, 16)}

    def grey(bits: int, clear: int | None = None) -> np.ndarray:
        values = np.rint(ramps[bits] * 255 / (2**bits - 1))
        return np.dstack([np.where(ramps[bits] == clear, 255, values)] * 3)  # on white

    files = {"grey-16.png": (png_chunks(24, 24, packed_rows(ramps[16], 16), 16, 0), grey(16))}
    for bits, clear in ((2, 1), (4, 3), (16, int(ramps[16][0, 4])), (16, 1)):  # there is no 1 in the last
        key = (b"tRNS", struct.pack(">H", clear))
        content = png_chunks(24, 24, packed_rows(ramps[bits], bits), bits, 0, before=(key,))
        files[f"grey-{bits}-clear-{clear}.png"] = (content, grey(bits, clear))
    colours = np.dstack([ramps[16], ramps[16][:, ::-1], ramps[16]])
    colours[0, 0] += 1  # is not the transparent colour, though its upper bytes are
    colours[0, 0, 1] -= 2
    key = (b"tRNS", struct.pack(">3H", *colours[1, 0]))
    on_white = np.where((colours == colours[1, 0]).all(-1, keepdims=True), 255, colours >> 8)
    files["colour-16-clear.png"] = (
        png_chunks(24, 24, packed_rows(colours, 16), 16, 2, before=(key,)),
        on_white,
    )
    files["grey-12.tiff"] = (tiff(ramps[12], 12), grey(12))
    files["grey-16.tiff"] = (tiff(ramps[16], 16), grey(16))
    files["white-is-0.tiff"] = (tiff(ramps[16], 16, white_is_zero=True), 255 - grey(16))
    files["grey-12.pgm"] = (b"P5 24 24 4095\n" + ramps[12].astype(">u2").tobytes(), grey(12))
    return files


def tiff(values: np.ndarray, bits: int, white_is_zero: bool = False, sample_format: int = 1) -> bytes:
    """An uncompressed grey TIFF of [H, W] values of 12 or 16 bits, from the specification (TIFF 6.0)."""
    height, width = values.shape
    if bits == 12:
        pairs = values.reshape(-1, 2)
        data = b"".join(bytes((a >> 4, (a & 15) << 4 | b >> 8, b & 255)) for a, b in pairs.tolist())
    else:
        data = values.astype("<u2").tobytes()
    entries = [
        *((256, width), (257, height), (258, bits), (259, 1), (262, 0 if white_is_zero else 1), (273, 8)),
        *((277, 1), (278, height), (279, len(data)), (339, sample_format)),
    ]
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<2H2L", t, 4, 1, v) for t, v in entries)
    return b"II*\0" + struct.pack("<L", 8 + len(data)) + data + directory + bytes(4)


def turned_files() -> dict[str, bytes]:
    """name -> a PNG that shows the gradient when it is turned by 90 degrees clockwise, as it says at various places."""
    exif = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    profile = b"\nexif\n%8d\n" % (len(exif) + 6) + (b"Exif\0\0" + exif).hex().encode() + b"\n"
    xmp = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
    )
    places: dict[str, dict[str, tuple[Chunk, ...]]] = {
        "exif-before.png": {"before": ((b"eXIf", exif),)},
        "exif-behind.png": {"behind": ((b"eXIf", exif),)},
        "magick.png": {"before": ((b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(profile)),)},
        "magick-plain.png": {"before": ((b"tEXt", b"Raw profile type exif\0" + profile),)},
        "xmp.png": {"before": ((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp),)},
    }
    pixels = packed_rows(smooth(24, 24), 8)
    return {name: png_chunks(24, 24, pixels, **chunks) for name, chunks in places.items()}


def many_scans_jpeg(count: int) -> bytes:
    """A progressive JPEG whose last scan is there so many times; each costs a pass over the whole picture."""
    data = encoded(Image.fromarray(smooth(24, 24)), "jpeg", progressive=True)
    start = data.rindex(b"\xff\xda")
    return data[:start] + data[start:-2] * count + data[-2:]


def many_pages_tiff(count: int) -> bytes:
    """A TIFF of so many pages, each as small as can be."""
    page = tiff(np.zeros((24, 24), int), 16)
    start = 8 + 24 * 24 * 2
    directory, size = page[start:-4], len(page) - start
    return page[:start] + b"".join(
        directory + struct.pack("<L", start + (i + 1) * size if i + 1 < count else 0) for i in range(count)
    )


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
        "thousands-of-pages.tiff": (many_pages_tiff(20_000), "several pages"),
        "scans.jpg": (many_scans_jpeg(200), "more than 100 scans"),
        "signed.tiff": (tiff(np.full((24, 24), 9), 16, sample_format=2), "no known range"),
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
        **deep_files(),
        **{name: (content, np.rot90(pixels, -1)) for name, content in turned_files().items()},
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
        "pipe.png": "a link", "device.png": "a link", "same.png": "duplicate name",
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
