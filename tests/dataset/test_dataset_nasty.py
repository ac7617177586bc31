"""Nasty files are converted right, skipped with a reason, or refused in one line; no traceback, no escape."""

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
from support import nasty_files
from support.dataset_samples import read_dataset_zip, write_zip

from dnnlib import UserError
from training.conversion.convert import ConvertOptions, convert, printable
from training.conversion.sources import open_source
from training.dataset import pictures
from training.dataset.pictures import BadPicture, flatten, open_picture

SKIPPED = nasty_files.skipped_files()
WANTED = nasty_files.wanted_files()


def run(source, dest, **options):
    skipped = {}
    convert(open_source(str(source)), str(dest), ConvertOptions(**options), skipped.__setitem__, progress=False)
    return read_dataset_zip(dest)[0], skipped


@pytest.mark.parametrize("name", SKIPPED)
def test_unusable_pictures_have_a_reason(name):
    content, reason = SKIPPED[name]
    with pytest.raises(BadPicture, match=reason):
        flatten(open_picture(content), 3, "white")


def test_other_pixels_want_another_version_of_the_reader():
    """Cached features of data sets are told apart by it. Of the formats whose decoders always give the same pixels."""
    digest = hashlib.sha256()
    for content, _ in nasty_files.deep_files().values():
        digest.update(np.asarray(flatten(open_picture(content), 3, "white")).tobytes())
    for content in nasty_files.turned_files().values():
        digest.update(np.asarray(flatten(open_picture(content), 1, "white")).tobytes())
    assert (pictures.VERSION, digest.hexdigest()[:16]) == (2, "fba42c427e538abc"), (
        "raise training.dataset.pictures.VERSION"
    )


@pytest.mark.parametrize("name", WANTED, ids=lambda n: ascii(n)[:30])
def test_unusual_pictures_come_out_right(name):
    content, expected = WANTED[name]
    got = np.asarray(flatten(open_picture(content), 3, "white")).astype(int)
    assert got.shape == (24, 24, 3)
    assert np.abs(got - expected).max() <= (12 if b"JFIF" in content[:20] or b"Adobe" in content[:20] else 1)


def test_transparent_parts_take_the_background():
    image = open_picture(WANTED["rgba.png"][0])
    black = np.asarray(flatten(image, 3, "black")).astype(int)
    assert np.abs(black - np.asarray(image)[..., :3] * 0.2).max() <= 1


def test_a_wide_gamut_profile_changes_the_colours():
    """A profile whose red and green are swapped shows whether profiles are obeyed at all."""
    from PIL import Image, ImageCms

    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    table = {bytes(profile[132 + 12 * i : 136 + 12 * i]): 132 + 12 * i for i in range(profile[131])}
    red, green = table[b"rXYZ"], table[b"gXYZ"]
    profile[red : red + 4], profile[green : green + 4] = b"gXYZ", b"rXYZ"
    for at in range(0, len(profile) - 4):
        if profile[at : at + 8] == "sRGB".encode("utf-16-be"):
            profile[at : at + 8] = "swap".encode("utf-16-be")
    out = nasty_files.encoded(Image.new("RGB", (8, 8), (255, 0, 0)), "png", icc_profile=bytes(profile))
    red_value, green_value, _ = np.asarray(open_picture(out))[0, 0]
    assert green_value > 200 > red_value


def test_a_folder_of_all_of_them(tmp_path):
    (tmp_path / "in").mkdir()
    for name, (content, _) in (SKIPPED | WANTED).items():
        (tmp_path / "in" / name).write_bytes(content)
    got, skipped = run(tmp_path / "in", tmp_path / "o.zip")
    assert len(got) == len(WANTED)
    assert set(skipped) == set(SKIPPED)
    with pytest.raises(UserError, match="without --strict it would be skipped"):
        run(tmp_path / "in", tmp_path / "p.zip", strict=True)
    assert {p.name for p in tmp_path.iterdir()} == {"in", "o.zip"}


def test_names_that_lead_out_of_an_archive_are_left_out(tmp_path):
    bad = nasty_files.traversal_zip(tmp_path / "in.zip")
    got, skipped = run(tmp_path / "in.zip", tmp_path / "o.zip")
    assert len(got) == 1
    assert {name.replace("\\", "/") for name in bad} == set(skipped)
    assert set(skipped.values()) == {"unsafe path"}
    assert {p.name for p in tmp_path.iterdir()} == {"in.zip", "o.zip"}


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_the_second_of_two_equal_names_is_left_out(tmp_path):
    nasty_files.duplicate_zip(tmp_path / "in.zip")
    got, skipped = run(tmp_path / "in.zip", tmp_path / "o.zip")
    assert len(got) == 1
    assert skipped == {"same.png": "duplicate name"}


def test_members_that_unpack_to_too_much_are_left_out(tmp_path):
    nasty_files.bomb_zip(tmp_path / "in.zip")
    got, skipped = run(tmp_path / "in.zip", tmp_path / "o.zip")
    assert len(got) == 1
    assert "more than" in skipped["zeros.png"]
    nasty_files.lying_zip(tmp_path / "liar.zip")
    assert run(tmp_path / "liar.zip", tmp_path / "p.zip")[1] == {"liar.png": "damaged: size or checksum is wrong"}


def test_overlapping_members_are_refused(tmp_path):
    nasty_files.overlapping_zip(tmp_path / "in.zip")
    with pytest.raises(UserError, match="overlap"):
        run(tmp_path / "in.zip", tmp_path / "o.zip")


def test_tar_members_that_are_no_files_or_lead_out_are_left_out(tmp_path):
    expected = nasty_files.nasty_tar(tmp_path / "in.tar")
    got, skipped = run(tmp_path / "in.tar", tmp_path / "o.zip")
    assert len(got) == 2
    assert {name.removeprefix("in.tar/") for name in skipped} == set(expected)
    for name, reason in expected.items():
        assert reason in skipped[f"in.tar/{name}"]


@pytest.mark.parametrize("cut", [700, 1300, 5000])
def test_a_truncated_tar_is_refused(tmp_path, cut):
    nasty_files.nasty_tar(tmp_path / "in.tar")
    (tmp_path / "cut.tar").write_bytes((tmp_path / "in.tar").read_bytes()[:cut])
    with pytest.raises(UserError, match="not a readable tar"):
        run(tmp_path / "cut.tar", tmp_path / "o.zip")
    assert not (tmp_path / "o.zip").exists()


def test_a_damaged_tar_header_is_not_taken_for_the_end(tmp_path):
    nasty_files.nasty_tar(tmp_path / "in.tar")
    data = bytearray((tmp_path / "in.tar").read_bytes())
    at = data.index(b"same.png")
    data[at : at + 4] = b"XXXX"
    (tmp_path / "bad.tar").write_bytes(data)
    with pytest.raises(UserError, match="damaged header"):
        run(tmp_path / "bad.tar", tmp_path / "o.zip")


def test_a_tar_header_of_a_gigabyte_is_refused_in_little_memory(tmp_path):
    """The long-name header of a gzipped tar may say any size; tarfile would read it at once."""
    code = f"""
import gzip, resource, sys, tarfile
info = tarfile.TarInfo("././@LongLink"); info.type = tarfile.GNUTYPE_LONGNAME; info.size = 1 << 30
with gzip.open({str(tmp_path / "b.tar.gz")!r}, "wb", compresslevel=1) as f:
    f.write(info.tobuf()); [f.write(bytes(1 << 20)) for _ in range(1024)]
sys.argv = ["dataset_tool.py", "--source={tmp_path}/b.tar.gz", "--dest={tmp_path}/o.zip", "--num-workers=1"]
resource.setrlimit(resource.RLIMIT_AS, (700 << 20, 700 << 20))
import dataset_tool
dataset_tool.main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": "."})
    assert done.returncode == 2, done.stderr
    assert "a header of" in done.stderr


def test_links_pipes_and_clutter_in_a_folder(tmp_path):
    nasty_files.nasty_folder(tmp_path / "in")
    got, skipped = run(tmp_path / "in", tmp_path / "o.zip")
    assert len(got) == 1
    assert set(skipped) == {"loop", "self.png", "dead.png", "pipe.png"}
    assert all("no regular file" in reason for reason in skipped.values())


def test_folders_nested_deeper_than_the_stack(tmp_path):
    deep = str(tmp_path / "in")
    for _ in range(1200):  # os.makedirs itself would recurse
        os.mkdir(deep)
        deep += "/a"
    deep = deep[:-2]
    with open(f"{deep}/good.png", "wb") as f:
        f.write(nasty_files.png(nasty_files.GOOD))
    assert len(run(tmp_path / "in", tmp_path / "o.zip")[0]) == 1
    os.remove(f"{deep}/good.png")
    os.removedirs(deep)  # so would pytest's tidying up


def test_names_are_safe_to_print():
    assert printable("a\x1b[31mred\n.png") == "a\\x1b[31mred\\n.png"
    assert printable("right\u202eleft") == "right\\u202eleft"
    assert len(printable("x" * 1000)) <= 120


def test_memory_of_one_open_file_is_bounded_when_a_zip_claims_too_many_members(tmp_path):
    write_zip(tmp_path / "in.zip", {"good.png": b""})
    data = bytearray((tmp_path / "in.zip").read_bytes())
    at = data.rindex(b"PK\x05\x06")
    data[at + 8 : at + 12] = b"\xfe\xff\xfe\xff"
    (tmp_path / "in.zip").write_bytes(data)
    with pytest.raises(UserError, match="shorter than its number of members"):
        open_source(str(tmp_path / "in.zip"))
