from __future__ import annotations

import time

import pytest

from service.bulk.names import MOST_BYTES, safe_names, shown


@pytest.mark.parametrize(
    ("sent", "name"),
    [
        ("photo.png", "photo.png"),
        ("photo.JPG", "photo.png"),
        ("photo.v2.webp", "photo.v2.png"),
        ("photo.v2", "photo.v2.png"),
        ("photo", "photo.png"),
        ("Ünïcødé 照片.gif", "Ünïcødé 照片.png"),
        ("e\u0301.png", "\u00e9.png"),
        ("", "image.png"),
        (".png", "png.png"),
        ("..", "image.png"),
        ("../../etc/passwd", "passwd.png"),
        ("/etc/passwd", "passwd.png"),
        ("..\\..\\windows\\system32\\evil.png", "evil.png"),
        ("C:\\me\\a.png", "a.png"),
        ("C:a.png", "C_a.png"),
        ("folder/", "image.png"),
        (".htaccess", "htaccess.png"),
        ("a. . .png", "a.png"),
        ("a\x00b\r\nc\x1b[31m.png", "abc[31m.png"),
        ("gnp\u202e.exe", "gnp.exe.png"),
        ('a<b>c:d"e|f?g*h.png', "a_b_c_d_e_f_g_h.png"),
        ("CON", "_CON.png"),
        ("nul.tar.gz", "_nul.tar.gz.png"),
        ("com1.png", "_com1.png"),
        ("console.png", "console.png"),
        ("\ud800.png", "png.png"),
    ],
)
def test_a_name_keeps_what_is_harmless(sent: str, name: str) -> None:
    assert safe_names([sent], ".png") == [name]


def test_names_are_bounded_in_bytes_and_cut_between_characters() -> None:
    for sent in ("x" * 10_000, "照" * 10_000, "a" + "😀" * 10_000):
        (name,) = safe_names([sent], ".png")
        assert MOST_BYTES - 4 < len(name.removesuffix(".png").encode()) <= MOST_BYTES
        assert name.removesuffix(".png") == sent[: len(name) - 4]


def test_equal_names_are_told_apart_even_where_case_does_not_count() -> None:
    sent = ["a.png", "a.jpg", "A.PNG", "a-2.png", "b/a.png", "", "", "x" * 300, "x" * 301]
    names = safe_names(sent, ".png")
    assert names[:7] == ["a.png", "a-2.png", "A-3.png", "a-2-2.png", "a-4.png", "image.png", "image-2.png"]
    assert len({name.casefold() for name in names}) == len(sent)
    assert all(len(name.encode()) <= 255 for name in names)


def test_many_equal_names_take_no_time() -> None:
    begun = time.perf_counter()
    names = safe_names(["a.png"] * 20_000, ".png")
    assert len(set(names)) == 20_000
    assert time.perf_counter() - begun < 5


def test_no_image_can_be_taken_for_the_report() -> None:
    assert safe_names(["report.json"], ".webp") == ["report.json.webp"]


def test_what_is_shown_of_a_name_is_bounded_and_fits_json() -> None:
    assert shown("a" * 1000) == "a" * 255
    assert shown("a\ud800b") == "a?b"
