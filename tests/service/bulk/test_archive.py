from __future__ import annotations

import gc
import io
import zipfile

from service.bulk.archive import Archive


def test_its_pieces_are_an_archive_whose_sizes_stand_before_the_files() -> None:
    archive = Archive()
    files = {"a.png": b"x" * 1000, "照片.png": b"", "c.png": bytes(range(256))}
    pieces = [archive.add(name, data) for name, data in files.items()]
    for (name, data), piece in zip(files.items(), pieces, strict=True):
        assert piece.startswith(b"PK\x03\x04")
        assert len(piece) == 30 + len(name.encode()) + len(data)
        assert piece.endswith(data)
        assert int.from_bytes(piece[22:26], "little") == len(data)
        assert piece[6] & 8 == 0  # no data descriptor behind the file
    with zipfile.ZipFile(io.BytesIO(b"".join(pieces) + archive.end())) as opened:
        assert opened.testzip() is None
        assert {name: opened.read(name) for name in opened.namelist()} == files
        assert {entry.compress_type for entry in opened.infolist()} == {zipfile.ZIP_STORED}
        assert {entry.external_attr >> 16 for entry in opened.infolist()} == {0o644}


def test_equal_files_make_equal_archives() -> None:
    def made() -> bytes:
        archive = Archive()
        return archive.add("a", b"1") + archive.end()

    assert made() == made()


def test_one_that_is_left_half_way_can_be_closed() -> None:
    archive = Archive()
    archive.add("a", b"1")
    archive.close()
    archive.close()
    del archive
    gc.collect()  # what a finalizer complains about fails this test
