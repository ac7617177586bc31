"""Our zip reader and writer against Python's."""

import io
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dnnlib import UserError
from training.dataset.zip_reader import BadMember, ZipReader
from training.dataset.zip_writer import ZipWriter

names = st.text(st.characters(codec="utf-8", exclude_characters="\0\\/\r\n"), min_size=1, max_size=20)
files = st.dictionaries(names, st.binary(max_size=300), max_size=12)


@settings(max_examples=60, deadline=None)
@given(files)
def test_zipfile_reads_what_we_write(content):
    out = io.BytesIO()
    writer = ZipWriter(out)
    for name, data in content.items():
        writer.write(name, data)
    writer.close()
    with zipfile.ZipFile(out) as z:
        assert z.testzip() is None
        assert {i.filename: z.read(i) for i in z.infolist()} == content
        assert all(i.date_time == (1980, 1, 1, 0, 0, 0) for i in z.infolist())


@settings(max_examples=60, deadline=None)
@given(content=files, packed=st.booleans(), comment=st.binary(max_size=30))
def test_we_read_what_zipfile_writes(tmp_path_factory, content, packed, comment):
    path = tmp_path_factory.getbasetemp() / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as z:
        z.comment = comment.replace(b"PK", b"--")
        for name, data in content.items():
            z.writestr(name, data)
    reader = ZipReader(str(path))
    assert reader.names() == sorted(content)
    assert {reader.name(i): reader.read(i) for i in range(len(reader))} == content
    reader.close()


def test_more_members_than_16_bits_count(tmp_path):
    count = 70_000
    with open(tmp_path / "many.zip", "wb") as f:
        writer = ZipWriter(f)
        for i in range(count):
            writer.write(f"{i:06d}", b"%d" % i)
        writer.close()
    with zipfile.ZipFile(tmp_path / "many.zip") as z:
        assert len(z.namelist()) == count
        assert z.read("069999") == b"69999"
    reader = ZipReader(str(tmp_path / "many.zip"))
    assert len(reader) == count
    assert reader.read(69_999) == b"69999"


def test_members_beyond_4_gigabytes(tmp_path):
    """The file is sparse: seeking takes the place of 5 GB of data."""
    with open(tmp_path / "far.zip", "wb") as f:
        writer = ZipWriter(f)
        writer.write("a", b"near")
        writer._offset = 5 << 30
        f.seek(5 << 30)
        writer.write("b", b"far")
        writer.close()
    with zipfile.ZipFile(tmp_path / "far.zip") as z:
        assert z.read("b") == b"far"
    reader = ZipReader(str(tmp_path / "far.zip"))
    assert [reader.read(i) for i in range(2)] == [b"near", b"far"]


def test_zipfile_s_own_zip64_entries_are_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as z, z.open("a", "w", force_zip64=True) as f:
        f.write(b"content")
    assert ZipReader(str(tmp_path / "z.zip")).read(0) == b"content"


def test_encrypted_and_unknown_methods_have_a_reason(tmp_path):
    for method in (zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2):
        with zipfile.ZipFile(tmp_path / "m.zip", "w", method) as z:
            z.writestr("a", b"content" * 50)
        with pytest.raises(BadMember, match="only stored and deflated"):
            ZipReader(str(tmp_path / "m.zip")).read(0)
    with zipfile.ZipFile(tmp_path / "e.zip", "w") as z:
        z.writestr("a", b"content")
    data = bytearray((tmp_path / "e.zip").read_bytes())
    data[data.rindex(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "e.zip").write_bytes(data)
    with pytest.raises(BadMember, match="encrypted"):
        ZipReader(str(tmp_path / "e.zip")).read(0)


def test_a_missing_file_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="can't open"):
        ZipReader(str(tmp_path / "nowhere.zip"))
