"""``POST /purify/batch``: every image an item of its own."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pytest
from PIL import Image

from service.bulk.answers import BatchAnswer
from tests.service.bulk.requests import AS_JSON, URL, form, opened


def test_an_archive_holds_every_image_and_a_report(
    client: Any, photos: Callable[..., Any], image_of: Callable[[bytes], Image.Image]
) -> None:
    sent = photos(3)
    answer = client.post(URL, files=form(*sent), headers={"x-request-id": "mine"})
    files, report = opened(answer)
    assert list(files) == ["0.png", "1.png", "2.png"]
    for name, data in sent:
        assert np.array_equal(np.asarray(image_of(files[name])), np.asarray(image_of(data)))
    assert (report.request_id, report.purifier, report.mode.name) == ("mine", "plain", "static")
    assert (report.succeeded, report.failed) == (3, 0)
    assert [(item.file, item.name, item.status) for item in report.items] == [(n, n, 200) for n, _ in sent]
    for item in report.items:
        assert item.suspicion is not None
        assert item.suspicion.linf == 0
        assert set(item.timings_ms or {}) == {"decode", "queue", "purify", "encode"}
        assert item.image is item.problem is None
    headers = answer.headers
    assert (headers["x-nrp-purifier"], headers["vary"], headers["cache-control"]) == ("plain", "Accept", "no-store")
    assert "attachment" in headers["content-disposition"]
    assert client.state.pixels.held == client.state.bodies.held == 0


def test_json_holds_them_in_base64(
    client: Any, photos: Callable[..., Any], image_of: Callable[[bytes], Image.Image]
) -> None:
    sent = photos(3)
    sent.insert(1, ("bad.png", b"text"))
    answer = client.post(URL, files=form(*sent), headers=AS_JSON)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    parsed = BatchAnswer.model_validate_json(answer.content)
    assert [item.status for item in parsed.items] == [200, 415, 200, 200]
    assert (parsed.succeeded, parsed.failed) == (3, 1)
    for (_, data), item in zip(sent, parsed.items, strict=True):
        if item.status == 200:
            assert item.image is not None
            back = image_of(base64.b64decode(item.image.base64))
            assert (back.width, back.height) == (item.image.width, item.image.height)
            assert np.array_equal(np.asarray(back), np.asarray(image_of(data)))


def test_one_bad_image_is_a_problem_of_its_own_and_the_others_come_back(
    client: Any, photo: Callable[..., Image.Image], file_of: Callable[..., bytes]
) -> None:
    good = file_of(photo())
    moving = io.BytesIO()
    photo().save(moving, "GIF", save_all=True, append_images=[photo(seed=1)])
    sent = [("a.png", good), ("t", b"text"), ("e", b""), ("s", good[:80]), ("g", moving.getvalue()), ("b.png", good)]
    files, report = opened(client.post(URL, files=form(*sent)))
    assert list(files) == ["a.png", "b.png"]
    problems = [item.problem for item in report.items]
    assert [problem and problem.type.rsplit(":", 1)[1] for problem in problems] == [
        None, "unsupported-image", "unreadable-image", "unreadable-image", "animated-image", None,
    ]  # fmt: skip
    assert [item.status for item in report.items] == [200, 415, 422, 422, 422, 200]
    for item, (name, _) in zip(report.items, sent, strict=True):
        if item.problem is not None:
            assert (item.problem.file, item.problem.status, item.name) == (name, item.status, None)
            assert (item.problem.instance, item.problem.request_id) == (URL, report.request_id)
    alone = client.post("/purify", content=b"text").json()
    told = problems[1]
    assert told is not None
    assert {**told.model_dump(), "instance": "", "request_id": ""} == {
        **alone, "instance": "", "request_id": "", "file": "t", "retry_after": None,
    }  # fmt: skip
    assert 'nrp_image_errors_total{type="unreadable-image"} 2.0' in client.get("/metrics").text


def test_all_bad_is_still_an_answer_an_item(client: Any) -> None:
    files, report = opened(client.post(URL, files=form(("a", b"x"), ("b", b"y"))))
    assert files == {}
    assert [item.status for item in report.items] == [415, 415]
    assert (report.succeeded, report.failed) == (0, 2)


def test_a_defect_with_one_image_is_a_500_of_its_own_that_tells_nothing(
    client: Any, photos: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = client.state.engine.run

    def broken(jobs: Sequence[Any]) -> Any:
        if any(job.pixels.shape[-1] == 20 for job in jobs):
            raise RuntimeError("a secret")
        return run(jobs)

    client.state.batcher._run = broken
    _, report = opened(client.post(URL, files=form(*photos(1), *photos(1, 20, 20), *photos(1))))
    assert [item.status for item in report.items] == [200, 500, 200]
    assert "secret" not in report.model_dump_json()
    assert "log" in report.items[1].problem.detail  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("wanted", "kind", "extension"), [("png", "PNG", ".png"), ("webp", "WEBP", ".webp"), ("jpeg", "JPEG", ".jpg")]
)
def test_the_format_is_chosen_and_the_extension_follows(
    client: Any, photos: Callable[..., Any], image_of: Callable[[bytes], Image.Image], wanted: str, kind: str,
    extension: str,
) -> None:  # fmt: skip
    files, _ = opened(client.post(f"{URL}?format={wanted}", files=form(*photos(1))))
    assert {name: image_of(data).format for name, data in files.items()} == {f"0{extension}": kind}
    answer = client.post(f"{URL}?format={wanted}", files=form(*photos(1)), headers=AS_JSON).json()
    assert answer["items"][0]["image"]["media_type"] == f"image/{wanted}"
    assert answer["items"][0]["name"] == f"0{extension}"


def test_no_name_leads_out_of_the_archive_or_hides_another(
    client: Any, photo: Callable[..., Image.Image], file_of: Callable[..., bytes]
) -> None:
    data = file_of(photo())
    sent = [
        "../../up.png",
        "/root.png",
        "..\\..\\up.png",
        "C:\\up.png",
        "x" * 3000,
        "照片.jpg",
        "",
        "report.json",
        "..",
    ]
    body = b"".join(
        b'--b\r\nContent-Disposition: form-data; name="files"; filename="'
        + name.encode()
        + b'"\r\n\r\n'
        + data
        + b"\r\n"
        for name in sent
    )
    headers = {"content-type": "multipart/form-data; boundary=b"}
    files, report = opened(client.post(URL, content=body + b"--b--\r\n", headers=headers))
    assert len(files) == len(sent)
    assert [item.name for item in report.items] == list(files)
    for name in files:
        assert PurePosixPath(name).name == name
        assert "\\" not in name
        assert len(name.encode()) <= 255
        assert name.endswith(".png")
    assert {"up.png", "up-2.png", "up-3.png", "root.png", "照片.png", "report.json.png", "image.png"} <= set(files)
    assert [len(item.file) for item in report.items if item.file.startswith("x")] == [255]


def test_a_name_that_is_no_text_does_no_harm(
    client: Any, photo: Callable[..., Image.Image], file_of: Callable[..., bytes]
) -> None:
    data = file_of(photo())
    head = b'--b\r\nContent-Disposition: form-data; name="files"; filename="'
    for charset, name, status in (
        ("unicode_escape", b"a\\\\ud800.png", 200),
        ("utf-8", b"\xff.png", 200),
        ("nonsense", b"a.png", 200),
        ("undefined", b"a.png", 422),
    ):
        body = head + name + b'"\r\n\r\n' + data + b"\r\n--b--\r\n"
        headers = {"content-type": f"multipart/form-data; boundary=b; charset={charset}"}
        answer = client.post(URL, content=body, headers=headers)
        assert answer.status_code == status, charset
        if status == 200:
            opened(answer)


def test_image_i_gets_seed_plus_i(
    client: Any, photo: Callable[..., Image.Image], file_of: Callable[..., bytes]
) -> None:
    data = file_of(photo())
    files, _ = opened(client.post(f"{URL}?mode=noisy&seed={2**63 - 2}", files=form(*[("a.png", data)] * 3)))
    for got, seed in zip(files.values(), (2**63 - 2, 2**63 - 1, 0), strict=True):
        assert got == client.post(f"/purify?mode=noisy&seed={seed}", content=data).content


@pytest.mark.parametrize(
    ("options", "status", "named"),
    [
        ({"files": [("file", ("a.png", b"x"))]}, 422, "files"),
        ({"files": [("other", ("a.png", b"x")), ("files", ("a.png", b"x"))]}, 422, "other"),
        ({"data": {"files": "text"}, "files": [("files", ("a.png", b"x"))]}, 422, "no file name"),
        ({"data": {"x": "y"}, "files": {}}, 422, "multipart/form-data"),
        ({"content": b"x", "headers": {"content-type": "image/png"}}, 422, "multipart/form-data"),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 422, "boundary"),
        ({"content": b"--b--\r\n", "headers": {"content-type": "multipart/form-data; boundary=b"}}, 422, "no file"),
        ({"files": [("files", ("a.png", b"x"))], "headers": {"content-encoding": "gzip"}}, 415, "gzip"),
        ({"files": [("files", ("a.png", b"x"))], "headers": {"accept": "image/png"}}, 406, "application/zip"),
    ],
)
def test_a_request_that_is_wrong_as_a_whole_is_one_problem(
    client: Any, options: dict[str, Any], status: int, named: str
) -> None:
    answer = client.post(URL, **options)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert named in answer.json()["detail"]


@pytest.mark.parametrize(("query", "status"), [("format=gif", 422), ("mode=wild", 422), ("purifier=no", 404)])
def test_a_wrong_parameter_is_one_problem_too(client: Any, query: str, status: int) -> None:
    answer = client.post(f"{URL}?{query}", files=form(("a", b"x")))
    assert answer.status_code == status
    assert query.partition("=")[0] in answer.json()["detail"]


def test_too_many_files_and_too_many_bytes_are_refused_before_any_work(client_for: Any) -> None:
    client = client_for(max_batch_files=3, max_body_bytes=2000)
    refused = client.post(URL, files=form(*[("a", b"x")] * 4))
    assert (refused.status_code, refused.json()["type"]) == (413, "urn:nrp:problem:too-many-files")
    assert "3 files" in refused.json()["detail"]
    assert client.post(URL, files=form(("a", b"x" * 2000))).json()["type"] == "urn:nrp:problem:body-too-large"
    assert opened(client.post(URL, files=form(*[("a", b"x")] * 3)))[1].failed == 3
    assert client.state.bodies.held == 0
    assert 'nrp_rejected_total{reason="too_many_files"} 1.0' in client.get("/metrics").text


def test_the_log_line_and_the_metrics_count_the_images(
    client: Any, photos: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    client.post(f"{URL}?seed=7", files=form(*photos(3), ("bad", b"x")))
    text = client.get("/metrics").text
    for series in (
        f'nrp_requests_total{{route="{URL}",status="200"}} 1.0',
        'nrp_suspicion_count{calibrated="false"} 3.0',
        'nrp_stage_seconds_count{stage="purify"} 3.0',
        'nrp_image_errors_total{type="unsupported-image"} 1.0',
    ):
        assert series in text, series
    line = next(line for line in capsys.readouterr().out.splitlines() if URL in line)
    assert "images" in line
    assert "failed" in line


def test_openapi_describes_it(client: Any) -> None:
    route = client.get("/openapi.json").json()["paths"][URL]["post"]
    assert list(route["requestBody"]["content"]) == ["multipart/form-data"]
    assert {"application/zip", "application/json"} <= set(route["responses"]["200"]["content"])
    assert {"format", "seed", "mode"} <= {parameter["name"] for parameter in route["parameters"]}
    assert json.dumps(route).count("report.json") >= 1
